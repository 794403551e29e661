"""Marginal means of a fitted model, and its adapter for the package marginaleffects."""

from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
from sklearn.utils.validation import _check_sample_weight, check_is_fitted

from sklmm._estimators.input import check_level
from sklmm._fitted.latent import linear_predictor
from sklmm._fitted.marginal_means import (
    PARTS,
    Moved,
    covariance_slopes,
    linear_means,
    parameters_of,
    predictors_of,
    response_means,
    without_error,
)
from sklmm._fitted.reference_grid import ReferenceGrid, factors_of
from sklmm.families.components import COMPONENTS, component_of


class MarginalMeans:
    """Methods of a fitted `BaseMixedEffects` that average its predictions."""

    def marginal_means(
        self,
        specs,
        X=None,
        *,
        by=None,
        at=None,
        scale="response",
        component=None,
        two_values="equal",
        level=0.95,
        sample_weight=None,
    ):
        """Estimated marginal means of factors, as R's emmeans makes them.

        Predictions at every combination of the values that the columns of the fixed part take in a
        reference grid, averaged with equal weights over all columns but `specs` and `by`. Factors
        take the levels of the fit, numbers their mean in X.

        Parameters
        ----------
        specs : str, int or list
            Columns whose levels have means; of several, every combination.
        X : DataFrame or array-like of shape (n_rows, n_columns), optional
            Rows whose columns of numbers tell their means, as those of the fit; not needed where
            all columns are factors of a formula, or are in `at`.
        by : str, int or list, optional
            Columns within whose levels contrasts are made.
        at : dict, optional
            Value, or list of values, of columns in the grid, ``{"age": [20, 40]}``. Several are
            averaged unless the column is one of `specs` or `by`.
        scale : {"response", "link"}, default="response"
            The expected response, which counts the zeros of `zero_inflation` in, or the linear
            predictor. For a Gaussian model both are the same. That of classes are their
            probabilities; of two classes that of the second.

            For a nonlinear family the expected response is averaged over the random effects too, by
            their estimated variances; with ``handle_unknown="typical"`` they are 0 as in emmeans.
        component : {"conditional", "zero", "dispersion"}, optional
            A part in the mean's place, as in `predict`.
        two_values : {"equal", "mean"}, default="equal"
            What a column of numbers with two values takes in the grid: both of them, which count
            equally, as emmeans has it; or its mean, as other numbers. Notes under the table say it.
        level : float, default=0.95
            Coverage of the intervals.
        sample_weight : array-like of shape (n_rows,), optional
            Weights of the rows of X in the means of numbers.

        Returns
        -------
        MarginalMeans
            Its ``table`` has estimate, std_error, df, ci_lower and ci_upper. Its ``pairwise()`` are
            the differences of all pairs, by Tukey's method, ``contrasts(weights)`` others. The
            degrees of freedom are those of the parameter `dof`; without it, and of families other
            than the Gaussian, tests are normal, by the delta method in all parameters. Intervals
            stay where means can be: those of probabilities, shares and ratings are symmetric on the
            logit scale between the two ends, those of positive means on the log scale. Intervals of
            differences are symmetric. A mean that the fit does not determine is nan.

        Raises
        ------
        ValueError
            For columns that the mean does not depend on, a grid of more than 100,000 rows, numbers
            without X or `at`, and an option that is not available.

        References
        ----------
        Searle, Speed & Milliken (1980), The American Statistician 34, 216-221.

        Examples
        --------
        >>> from sklmm import MixedEffectsRegressor
        >>> from sklmm.datasets import load_sleepstudy
        >>> X, y = load_sleepstudy(return_X_y=True, as_frame=True)
        >>> X["late"] = (X["Days"] > 4).map({True: "late", False: "early"})
        >>> model = MixedEffectsRegressor(
        ...     ["Subject"], fixed_effects="~ late", dof="satterthwaite"
        ... ).fit(X, y)
        >>> means = model.marginal_means("late")
        >>> means.table["estimate"].round(1).to_dict(), means.table["df"].round(1).tolist()
        ({'early': 271.6, 'late': 325.4}, [19.8, 19.8])
        >>> means.pairwise().table["estimate"].round(1).to_dict()
        {'early - late': -53.8}
        """
        from sklmm.inspection.marginal_means import MarginalMeans as Found

        check_is_fitted(self)
        self._check_options(scale=scale, component=component, two_values=two_values)
        check_level("level", level)
        by = _columns(by)
        specs = [column for column in _columns(specs) if column not in by]
        model, result = self._fitted, self.result_
        none = [False] * len(model.spec.every_term)
        table = None if X is None else self._validate_new(X, none)
        weights = sample_weight
        if not (table is None or weights is None):
            weights = _check_sample_weight(weights, table, ensure_non_negative=True)
        grid = ReferenceGrid.of(model.spec, table, (*by, *specs), at or {}, two_values, weights)
        # What is not estimable is nan, and no error.
        spec = replace(model.spec, estimable=None)
        covariances = result.covariances if model.n_predictors == 1 else None
        design = spec.apply(grid.table, none, covariances)
        linear = self._is_linear(component)
        if linear or scale == "link":
            means = linear_means(grid, predictors_of(model, design, component), result)
        else:
            expected = partial(self._averaged, design, none, component)
            means = response_means(grid, expected, model, design, result, self._limits(component))
        index = grid.index()
        if len(means.values) > grid.n_means:
            classes = self.classes_ if scale == "response" else model.classes[1:]
            index, order = _by_class(index, len(by), classes)
            means, by = means.taken(order), (*by, "class")
        notes = self._notes(grid, scale, component, linear)
        return Found.of(means, index, tuple(by), level, notes, model, result)

    def to_marginaleffects(self, X, *, include_random=True, scale="response", component=None):
        """The model for the package marginaleffects: averages, comparisons and slopes.

        The object is given to its functions in the place of a model, ``avg_predictions(model)``.
        Estimates are those of `predict` (`predict_proba`) averaged over rows, standard errors by
        the delta method in the coefficients, SDs, correlations and the family's parameters, with
        the effects of known levels as they are.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_rows, n_columns)
            Rows that are averaged over, as those of the fit. Of a DataFrame columns that the model
            does not use may be in `by` and `wts`.
        include_random : bool or list of str, default=True
            As in `predict`: with the random effects of the rows, or without. Without them, the mean
            of a nonlinear family is averaged over their distribution; with
            ``handle_unknown="typical"`` it is at effects of 0.
        scale : {"response", "link"}, default="response"
            The expected response, or the linear predictor.
        component : {"conditional", "zero", "dispersion"}, optional
            A part in the mean's place, as in `predict`.

        Returns
        -------
        marginaleffects.classes.ModelAbstract

        Raises
        ------
        ImportError
            Without marginaleffects.
        ValueError
            For an option that is not available, and what `predict` refuses.

        Notes
        -----
        Tests of marginaleffects are normal ones, whatever it calls them: `marginal_means` has
        degrees of freedom. Its version 0.6.1 reads ``wts`` only beside ``by``.

        References
        ----------
        Arel-Bundock, Greifer & Heiss (2024), J. Stat. Softw. 111(9).

        Examples
        --------
        >>> from marginaleffects import avg_slopes
        >>> from sklmm import MixedEffectsRegressor
        >>> from sklmm.datasets import load_sleepstudy
        >>> X, y = load_sleepstudy(return_X_y=True, as_frame=True)
        >>> model = MixedEffectsRegressor(["(1 + Days | Subject)"]).fit(X, y)
        >>> slopes = avg_slopes(model.to_marginaleffects(X, include_random=False))
        >>> slopes.data.select("estimate", "std_error").to_numpy().round(1)
        array([[10.5,  1.5]])
        """
        from sklmm.inspection.marginaleffects import MarginalEffectsModel

        check_is_fitted(self)
        self._check_options(scale=scale, component=component)
        if scale == "link" and component is not None:
            raise ValueError(
                f"component={component!r}: scale='link' is of the mean's predictor: leave one."
            )
        include, model, result = self._include(include_random), self._fitted, self.result_
        (X, _), table = self._without_response(X), pd.DataFrame(self._validate_new(X, include))
        if isinstance(X, pd.DataFrame):
            others = X.columns.difference(table.columns, sort=False)
            table = table.assign(**{str(column): X[column] for column in others})
        d, family = model.n_predictors, model.family
        covariances = result.covariances if d == 1 else None
        unordered, groups = family.classes == "unordered", None
        if unordered or (scale == "response" and len(getattr(self, "classes_", ())) > 2):
            groups = list(map(str, model.classes[1:] if scale == "link" else self.classes_))
        # Linear predictors have no parameters but the coefficients.
        linear = scale == "link" or self._is_linear(component)
        apply = partial(model.spec.apply, include=include, covariances=covariances)
        move = Moved(model.labels.family, result, covariance_slopes(apply(table[:1]), result, d))

        def predicted(design, values):
            moved = move(values)
            if linear:
                eta = linear_predictor(design, moved, include, d)
                return eta[:, 0] if d > 1 and not unordered else eta
            return self._averaged(design, include, component, moved)

        return MarginalEffectsModel(
            self,
            table,
            model.spec.used([False] * len(include)),
            factors_of(model.spec),
            *parameters_of(result, len(result.coef) if linear else None),
            apply,
            predicted,
            groups,
        )

    def _is_linear(self, component):
        """Whether the mean, or its part, is the linear predictor itself."""
        return self._fitted.family.mean_is_eta and component in (None, "conditional")

    def _limits(self, component):
        """The least and the greatest mean, or part of it."""
        if hasattr(self, "classes_"):
            return 0.0, 1.0
        family = self._response_family()
        family = family if component is None else component_of(family, component)
        return family.limits(self.result_.family)

    def _check_options(self, **given):
        known = {
            "scale": ("response", "link"),
            "component": (None, *COMPONENTS),
            "two_values": ("equal", "mean"),
        }
        for name, value in given.items():
            if value not in known[name]:
                raise ValueError(
                    f"{name}={value!r} is not available: use one of "
                    f"{', '.join(map(repr, known[name]))}."
                )
        if (component := given.get("component")) is not None:
            component_of(self._fitted.family, component)

    def _averaged(self, design, include, component, result):
        """`_expected` of rows at a result; of two classes the probability of the second one."""
        found = self._expected(design, include, result, component)
        return found[:, 1] if len(getattr(self, "classes_", ())) == 2 else found

    def _notes(self, grid, scale, component, linear):
        """What the means are, over what they are averaged and where they are held."""
        what = "response" if component is None else f"{component} part of the response"
        if hasattr(self, "classes_"):
            what = "probability of each class"
            if len(self.classes_) == 2:
                what = f"probability of {self.classes_[1]}"
        kind = "Linear predictor (link scale) of the" if scale == "link" else "Expected"
        first = f"{kind} {what}"
        spec, own = self._fitted.spec, PARTS.get(component, component)
        parts = {"conditional": spec.terms} | {name: part.terms for name, part in spec.models}
        of = parts.get(own, ()) if component else spec.every_term
        terms = ", ".join(term.name for term in of)
        if terms and not linear and scale == "response":
            typical = self.handle_unknown == "typical"
            first += f" at effects of 0 of {terms}" if typical else f", averaged over {terms}"
        notes = [f"{first}.", *grid.notes()]
        unknown = np.isnan(np.diag(self.result_.natural_cov))
        unknown[without_error(self._fitted, self.result_)] = False
        if unknown[len(self.result_.coef) :].any() and not linear and scale == "response":
            notes.append("Variances without a standard error, on their bounds, count as known.")
        return notes


def _columns(given):
    if given is None:
        return []
    return list(given) if isinstance(given, list | tuple) else [given]


def _by_class(index, n_by, classes):
    """(The index of means by class too, after the first levels, and the order that they are in)."""
    frame = index.to_frame(index=False)
    n, k = len(frame), len(classes)
    n_outer = len(frame.drop_duplicates(list(frame.columns[:n_by]))) if n_by else 1
    order = np.arange(n * k).reshape(n_outer, n // n_outer, k).transpose(0, 2, 1).ravel()
    frame = frame.loc[order // k].reset_index(drop=True)
    frame.insert(n_by, "class", np.asarray(classes)[order % k])
    return pd.MultiIndex.from_frame(frame), order
