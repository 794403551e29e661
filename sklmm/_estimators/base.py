"""Fit and predict plumbing of the estimators: validation, the engine's call, fitted attributes."""

from copy import copy
from dataclasses import replace
from functools import lru_cache, partial
from numbers import Integral, Real

import numpy as np
import pandas as pd
from sklearn.base import _fit_context, clone
from sklearn.callback import CallbackSupportMixin
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from sklmm._estimators.attributes import Tables
from sklmm._estimators.input import generator, informative, response_name, restoring
from sklmm._estimators.new_rows import NewRows, nan_where_missing, unseen_levels
from sklmm._estimators.priors import resolve_priors
from sklmm._estimators.progress import Watch
from sklmm._estimators.reports import Reports
from sklmm._estimators.warnings import warn_of_fit, warn_of_update
from sklmm._fitted import draws
from sklmm._fitted.edges import parts_at_infinity
from sklmm._fitted.model import FittedModel
from sklmm._fitted.separation import is_determined, largest_variance, separation, unbounded
from sklmm._state import PlainEstimator
from sklmm.design.design import DesignSpec, check_effects, columns_needed
from sklmm.design.estimable import Estimable
from sklmm.design.formula import formula_parameters
from sklmm.design.terms import resolve_terms, with_relationships
from sklmm.engine import fit as engine
from sklmm.families import Family
from sklmm.families.parts import PARTS, modelled, with_parts
from sklmm.priors import GammaPrior
from sklmm.result import Status
from sklmm.steps import ConjugateGradient, EStep, Exact, MStep


class BaseMixedEffects(Tables, PlainEstimator, CallbackSupportMixin, Reports, NewRows):
    """What both estimators share; each adds what it makes of the response."""

    _parameter_constraints = {
        "random_effects": ["array-like", None, str, Integral, object],
        "fixed_effects": ["array-like", None, str],
        "fit_intercept": ["boolean"],
        "family": [str, Family, callable],
        "method": [StrOptions({"auto", "reml", "ml"})],
        "e_step": [str, EStep],
        "m_step": [str, MStep],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [StrOptions({"auto"}), Interval(Real, 0, None, closed="neither")],
        "handle_unknown": [StrOptions({"population", "typical", "error"})],
        "warm_start": ["boolean"],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
        "device": [str, None],
        "offset": [str, Integral, None],
        "missing": [StrOptions({"error", "drop"})],
        "nominal": [str, list, tuple, None],
        "coef_prior": [Interval(Real, 0, None, closed="neither"), dict, None],
        "sd_prior": [StrOptions({"gamma"}), GammaPrior, dict, None],
    }
    #: The regressor's parameter, see there; the classifier has none.
    dof = None

    @classmethod
    def from_formula(cls, formula, relationships=None, **params):
        """Estimator from an lme4 formula; its `fit` takes y from the table.

        Parameters
        ----------
        formula : str
            ``"y ~ x * C(z) + offset(w) + (1 + x | g)"``: the fixed part in formulaic's grammar,
            random-effect terms in lme4's; y is a column, or ``cbind(successes, failures)``,
            or ``cbind(lower, upper)``.
        relationships : dict of str to Relationship, optional
            By grouping column, how the levels of its terms are related.
        **params
            The estimator's other parameters.

        Returns
        -------
        estimator
            With `random_effects` and `fixed_effects` set, to be fitted by ``fit(table)``.

        Raises
        ------
        ValueError
            For a formula that cannot be read, or a relationship of no term.

        Examples
        --------
        >>> from sklmm import MixedEffectsRegressor
        >>> from sklmm.datasets import load_sleepstudy
        >>> table = load_sleepstudy(as_frame=True).frame
        >>> model = MixedEffectsRegressor.from_formula("Reaction ~ Days + (1 + Days | Subject)")
        >>> model.fit(table).coef_.round(2)
        array([10.47])
        """
        own = formula_parameters(formula)
        if relationships is not None:
            terms = with_relationships(own["random_effects"] or [], relationships)
            own["random_effects"] = terms
        return cls(**own, **params)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None, sample_weight=None):
        """Fit the model.

        Parameters
        ----------
        X : DataFrame, array-like or sparse matrix of shape (n_rows, n_columns)
            Grouping, slope and fixed-effects columns. Many sparse columns, those of a sparse matrix
            or of a DataFrame's pd.SparseDtype, stay sparse in the fixed part of a Gaussian model
            fitted by REML; others must fit in a gigabyte as dense ones.
        y : array-like of shape (n_rows,), optional
            Response; None where `fixed_effects` is a formula that names it.
        sample_weight : array-like of shape (n_rows,), optional
            Repetitions of each row: a row of weight 2 counts as that row twice. Rows of weight 0
            are dropped.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            Naming the column or parameter, the value and the remedy; the estimator is left as it
            was.

        Examples
        --------
        >>> from sklmm import MixedEffectsRegressor
        >>> from sklmm.datasets import load_sleepstudy
        >>> X, y = load_sleepstudy(return_X_y=True, as_frame=True)
        >>> MixedEffectsRegressor(["(1 + Days | Subject)"]).fit(X, y).converged_
        True
        """
        # Outside `restoring`, so that scikit-learn tears the callbacks down after an error too.
        task = self._init_callback_context(max_subtasks=self.max_iter)
        metadata = None if sample_weight is None else {"sample_weight": sample_weight}
        data = {"X": X, "y": y, "metadata": metadata}
        with restoring(self):
            task.call_on_fit_task_begin(estimator=self, **data)
            self._fit(X, y, sample_weight, partial(Watch, self, task, data))
            task.call_on_fit_task_end(estimator=self, **data, reconstruction_attributes={})
        return self

    def _fit(self, X, y, sample_weight, watch):
        X, y = self._take_response(X, y, fitting=True)
        table, name = self._validate_table(X, reset=True), response_name(y)
        terms = resolve_terms(self.random_effects, getattr(table, "columns", ()))
        names = getattr(self, "feature_names_in_", None)
        names = None if names is None or isinstance(table, pd.DataFrame) else list(names)
        parts = self._parts()
        read = partial(columns_needed, table, terms, self.fixed_effects, self.offset, names, parts)
        table, y, weights, n_missing = self._known_rows(table, y, sample_weight, read)
        y = self._validate_target(table, y)
        family = self._resolve_family(y)
        if parts:
            family = with_parts(family, parts)
        table, response = informative(table, family.bind(y, weights))
        spec, design = self._learn(table, terms, names, response, parts)
        if parts:
            spec, response = modelled(spec, response, design.models)
        e_step, family = self._checked_e_step(spec, design, response), response.family
        known = {
            # Another than was asked for where `bind` says so, as for two unordered classes.
            "family": clone(family) if family is self.family else family,
            # A Series made of a column has its name too.
            "response_name": "y" if name in spec.used() else name,
            "from_frame": isinstance(table, pd.DataFrame),
            # Of objects in an array a frame is made too, whose names nobody gave.
            "by_name": self.fixed_effects is not None and isinstance(X, pd.DataFrame),
            "n_missing": n_missing,
            "e_step": clone(e_step) if e_step is self.e_step else e_step,
        }

        def fitted(result):
            other = copy(self)
            other._set_fitted(FittedModel.of(spec, design, response, result, **known), result)
            return vars(other)

        watched = self.verbose or hasattr(self, "_skl_callbacks")
        watch = watch(fitted) if watched else None
        priors = self._priors(spec, design, response, e_step)
        result = self._run(design, response, spec.fit_intercept, e_step, watch, priors)
        dropped = result.dropped[: design.X.shape[1]]
        if dropped.any() and not spec.sparse:
            left_out = Estimable(dropped, *engine.combination(design.X, dropped))
            spec = replace(spec, estimable=left_out)
        found, converged = None, result.status.converged
        determined = converged and self._stops_by_rule()
        largest = partial(largest_variance, design.X)
        determined = determined and is_determined(result, response, self.tol, largest)
        if result.status is not Status.STOPPED and not determined:
            held = result.dropped[: design.X.shape[1]]
            if priors is not None:
                own = np.isfinite(priors.coef)[: len(priors.coef) // len(held) * len(held)]
                held = held | own.reshape(-1, len(held)).any(axis=0)
            found = separation(design, response, held)
        result = parts_at_infinity(result, design, response)
        if found is not None:
            result = unbounded(result, found, design)
        self._set_fitted(FittedModel.of(spec, design, response, result, **known), result)
        warn_of_fit(self, design, table, response, e_step, found, converged)

    def _parts(self):
        """The model's other parts that are given, by name."""
        given = {name: getattr(self, name, None) for name in PARTS}
        return {name: own for name, own in given.items() if own is not None}

    def _learn(self, table, terms, names, response, parts=None):
        """(DesignSpec, Design) of a training table."""
        ordinal = response.family.classes == "ordered"
        spec, design = DesignSpec.learn(
            table,
            terms,
            self.fixed_effects,
            self.fit_intercept or ordinal,
            names,
            self.offset,
            keep_sparse=response.family.closed_form
            and self.method != "ml"
            and self._stops_by_rule()
            and self.dof is None
            and self.coef_prior is None,
            models=parts,
        )
        self._check_model(spec, design, response, response.weights.sum())
        return spec, design

    def _check_model(self, spec, design, response, total):
        """ValueError for a model that its family does not have; `total` is the weights' sum."""
        if response.family.classes == "ordered" and not spec.fit_intercept:
            raise ValueError(
                f"fixed_effects={self.fixed_effects!r}: an ordinal model's cutpoints stand for the "
                "intercept: leave it in the formula."
            )
        if self.offset is not None and response.n_predictors > 1:
            raise ValueError(
                f"offset={self.offset!r} is one number a row, and family={response.family.name!r} "
                f"has {response.n_predictors} predictors a row: use offset=None."
            )
        if response.parameters.get("sigma") == "positive":
            check_effects(spec, design, total)

    def _checked_e_step(self, spec, design, response):
        sparse = bool(spec.sparse)
        e_step = self._resolved_e_step(design, response, sparse)
        self._check_dof(e_step, response.family)
        return e_step

    def _check_dof(self, e_step, family):
        if self.dof is not None and not isinstance(e_step, Exact | ConjugateGradient):
            raise ValueError(
                f"dof={self.dof!r} is for family='gaussian' or 'lognormal' with e_step 'auto', "
                f"'exact' or 'cg', not {family.name!r} with {e_step!r}: use dof=None."
            )

    def _resolved_e_step(self, design, response, sparse=False):
        # Quadrature has no REML, and runs on no device but the processor. Rows are read for it.
        quadrature = (
            self.e_step == "auto"
            and self.method != "reml"
            and engine.has_quadrature(design, response.family, response.n_predictors)
            and engine.on_cpu(self.device)
        )
        return engine.resolve_e_step(
            self.e_step,
            response.family,
            design.sizes,
            sparse,
            self.device,
            quadrature,
            self.m_step,
            design.coupled,
            design.related,
        )

    def update(self, X, y=None, sample_weight=None):
        """Update the random effects by new rows, of known or new groups, without refitting.

        The groups' posterior given the rows of the fit, of earlier updates and these takes the
        place of the one before in `random_effects_`, `random_effects_std_`, `result_` and every
        prediction. New levels join those of their term, in a fit's order. All else stays as it
        was: coefficients, variances, family parameters, ``loglik_`` and the tables.

        The coefficients, and the effects of levels without new rows, are held at their posterior
        means. For a Gaussian model with one grouping factor that is the exact posterior given all
        rows and the parameters, in whatever parts the rows come. Crossed and nested factors, and
        rows that belong to several levels, start from each level's own posterior, that of its
        coefficients together, without what the earlier rows say of two levels jointly: fit again
        with ``warm_start=True`` when the new rows outweigh the old ones. Levels with a known
        `Relationship`, where new rows of one tell of all, are refused. Families other than the
        Gaussian get Laplace's approximation about the new mode.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_rows, n_columns)
            Columns as in the fit. Levels that the fit did not see are new ones, also with
            ``handle_unknown="error"``.
        y : array-like of shape (n_rows,), optional
            Response; of classes, those of the fit. None where a formula names it.
        sample_weight : array-like of shape (n_rows,), optional
            Repetitions of each row, as in `fit`.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            Naming the column or parameter, the value and the remedy; the estimator is left as it
            was.

        Examples
        --------
        >>> from sklmm import MixedEffectsRegressor
        >>> from sklmm.datasets import load_sleepstudy
        >>> X, y = load_sleepstudy(return_X_y=True, as_frame=True)
        >>> model = MixedEffectsRegressor(["(1 + Days | Subject)"]).fit(X, y)
        >>> new = X[X["Subject"] == 308].assign(Subject=999)
        >>> model.predict(new[-1:]).round(1)
        array([345.6])
        >>> model.update(new, y[new.index]).predict(new[-1:]).round(1)
        array([430.7])
        """
        check_is_fitted(self)
        table, response = self._new_response(X, y, sample_weight)
        spec = self._fitted.spec.grown(table)
        design, places = spec.apply(table), self._fitted.spec.places(spec)
        self._check_updatable(design)
        curvature = getattr(self.e_step, "curvature", "observed")
        result = engine.update(self.result_, design, response, places, curvature)
        with restoring(self):
            # Those of the fit stay, but for the effects'.
            self._make_tables()
            self._fitted, self.result_ = replace(self._fitted, spec=spec), result
            self._forget_tables("random_effects")
        warn_of_update(result)
        return self

    @nan_where_missing
    def sample_y(self, X, n_samples=1, random_state=None):
        """Draw responses from the posterior predictive distribution.

        Parameters
        ----------
        X : DataFrame, array-like or sparse matrix of shape (n_rows, n_columns)
        n_samples : int, default=1
        random_state : int, RandomState or None

        Returns
        -------
        ndarray of shape (n_rows, n_samples)
            Numbers, or labels of a classifier. Coefficients and effects are drawn once a sample, so
            rows of one level share its effect. That of an unseen level is drawn from the prior,
            also with ``handle_unknown="typical"``.

        Raises
        ------
        ValueError, TypeError
            Naming a column that is missing or not as in the fit, and the remedy.

        Examples
        --------
        >>> from sklmm import MixedEffectsRegressor
        >>> from sklmm.datasets import load_sleepstudy
        >>> X, y = load_sleepstudy(return_X_y=True, as_frame=True)
        >>> model = MixedEffectsRegressor(["(1 + Days | Subject)"]).fit(X, y)
        >>> draws = model.sample_y(X, n_samples=1000, random_state=0)
        >>> draws.shape
        (180, 1000)
        """
        table, design, _ = self._new_design(X)
        model, rng = self._fitted, generator(random_state)
        params = model.parameters(self.result_, design)
        pairs = zip(model.spec.every_term, design.every_block, strict=True)
        unseen = [unseen_levels(table, term, block.refs) for term, block in pairs]
        drawn = draws.sample(
            design, unseen, self.result_, model.family, params, n_samples, rng, model.n_predictors
        )
        return drawn if model.classes is None else model.classes[drawn.astype(int)]

    def _check_updatable(self, design):
        if not design.every_block:
            raise ValueError(
                "random_effects: the model has no terms, so there are no effects to update: fit "
                "it again, with all rows."
            )
        if design.sparse is not None:
            raise ValueError(
                "X: the model keeps its sparse columns apart, and update does not know how they "
                "vary with the effects: fit again, with warm_start=True."
            )
        pairs = zip(self._fitted.spec.every_term, design.every_block, strict=True)
        for term, block in pairs:
            if block.relation is not None:
                raise ValueError(
                    f"random_effects: the levels of {term.name!r} have a known relationship, and "
                    "new rows of one change the effects of its relatives, which update would leave "
                    "as they are: fit again with all rows, and warm_start=True."
                )
        if self.result_.status is Status.PERFECT:
            raise ValueError(
                "y: the fixed effects alone reproduced that of the fit, so the model has no "
                "variances to weigh new rows by: fit it again, with all rows."
            )

    def _priors(self, spec, design, response, e_step):
        """`Priors` of the design's columns and blocks, or None without any."""
        if self.coef_prior is None and self.sd_prior is None:
            return None
        reml = self._settings(response, spec.fit_intercept, e_step, None).reml
        return resolve_priors(self, spec, design, response, e_step, reml)

    def _run(self, design, response, fit_intercept, e_step, watch=None, priors=None):
        start = getattr(self, "result_", None) if self.warm_start else None
        settings = self._settings(response, fit_intercept, e_step, start)
        return engine.run(design, response, settings._replace(priors=priors), watch)

    def _settings(self, response, fit_intercept, e_step, start):
        m_step = engine.resolve_m_step(self.m_step, e_step, response.family)
        # "auto" is REML for the Gaussian family, except that Adam trains the coefficients as
        # parameters, by ML.
        gaussian = response.family.closed_form or response.family.quadratic
        reml = self.method == "reml" or (self.method == "auto" and gaussian and m_step is None)
        return engine.Settings(
            fit_intercept=fit_intercept,
            reml=reml,
            e_step=e_step,
            m_step=m_step,
            max_iter=self.max_iter,
            tol=None if self.tol == "auto" else self.tol,
            seed=seed_of(self.random_state),
            start=start,
            device=self.device,
            dof=self.dof,
        )

    def _set_fitted(self, model, result):
        self._forget_tables()
        # Those of other rows.
        self.__dict__.pop("_sums", None)
        self._fitted, self.result_, labels = model, result, model.labels
        self.e_step_ = model.e_step
        intercept, coef = model.coefficients(result)
        one = len(coef) == 1
        self.coef_, self.intercept_ = (coef[0], float(intercept[0])) if one else (coef, intercept)
        parts = {name for own in model.models for name in own.names}
        self.family_params_ = {k: v for k, v in result.family.items() if k not in parts}
        if labels.cutpoints:
            self.intercept_ = 0.0
            reported = labels.estimates(result.coef, result.natural)
            self.family_params_ = {"cutpoints": reported[: len(labels.cutpoints)]}
        self.sigma_ = result.sigma
        if model.family.dispersion_parameter == "sigma" and "sigma" not in result.family:
            self.sigma_ = float(np.sqrt(model.spread.noise))
        self.n_iter_ = max(len(result.history), 1)
        self.converged_ = result.status.converged

    def _stops_by_rule(self):
        return self.m_step == "auto"


def seed_of(random_state):
    """The engine's seed; of a number the same each time, as of a new generator."""
    return (_known_seed if isinstance(random_state, Integral) else _new_seed)(random_state)


def _new_seed(random_state):
    return int(check_random_state(random_state).randint(2**31 - 1))


#: A generator is slow to make: longer than it takes to read a small table.
_known_seed = lru_cache(_new_seed)
