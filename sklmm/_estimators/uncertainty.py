"""Confidence intervals of a fitted estimator's parameters."""

from copy import copy
from dataclasses import replace
from functools import partial

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from sklmm._estimators.input import check_level
from sklmm._fitted import bootstrap, intervals, tables
from sklmm.engine import fit as engine
from sklmm.result import Status

#: Kinds of the bootstrap's intervals.
KINDS = ("normal", "percentile", "bca")


class Intervals:
    """Methods of a fitted `BaseMixedEffects` that have intervals of its parameters."""

    def conf_int(
        self,
        level=0.95,
        method="wald",
        X=None,
        y=None,
        sample_weight=None,
        *,
        parm=None,
        kind="normal",
        n_resamples=500,
        n_jobs=None,
        random_state=None,
        verbose=0,
    ):
        """Confidence intervals of the coefficients and the variance parameters.

        Parameters
        ----------
        level : float, default=0.95
        method : {"wald", "profile", "bootstrap"}, default="wald"
            "wald" is the estimate and its standard error. "profile" is the profile likelihood, by
            ML, as lme4's: for SDs of few levels it is the one to trust. It is for Gaussian models,
            and for others that quadrature or Laplace's approximation fits without Monte Carlo
            error, by the likelihood of the fit; without priors. Of an estimate at an edge of its
            range (a dispersion of 0, the logit of a probability of 0, a column that separates the
            rows) one limit is that edge, 0 or infinite, and the other is finite. "bootstrap" fits
            the model to data drawn from itself: any family, and as many fits.
        X, y, sample_weight
            The rows of the fit, for "profile" and "bootstrap".
        parm : str, int or list of them, optional
            Names of the parameters wanted, or their places from 0 on, as R's confint has it; None
            takes all. A profile of one parameter costs its share of all.
        kind : {"normal", "percentile", "bca"}, default="normal"
            The bootstrap's interval. "normal" is of the resamples' SD, and less their bias: it
            wants the fewest of them. "percentile" are quantiles of the resamples, as lme4's
            default. "bca" are quantiles at levels that correct for the bias and the skewness of the
            estimates, from 1,000 resamples on: the skewness is a jackknife's, which fits once more
            without each level of the grouping factor that holds all others, or else of the largest
            one (without each row where there is none), in 200 groups of more.
        n_resamples : int, default=500
            Bootstrap fits.
        n_jobs : int, optional
            Processes of joblib's.
        random_state : int, RandomState or None
            Of the bootstrap, whose numbers do not depend on `n_jobs`.
        verbose : int, default=0
            Progress of the bootstrap, as joblib's `Parallel` prints it.

        Returns
        -------
        DataFrame
            Columns lower and upper, one row a parameter; nan where there is no standard error or
            no profile.

        Warns
        -----
        ConvergenceWarning
            Where a profile is higher than the estimates, which are no maximum then.

        Raises
        ------
        ValueError
            Where a method needs rows or a family that it does not have, or for an unknown `parm`.

        References
        ----------
        Bates, Maechler, Bolker & Walker (2015), J. Stat. Softw. 67(1), sec. 5.1.
        Efron (1987), Better bootstrap confidence intervals, JASA 82, 171-185.

        Examples
        --------
        >>> from sklmm import MixedEffectsRegressor
        >>> from sklmm.datasets import load_sleepstudy
        >>> X, y = load_sleepstudy(return_X_y=True, as_frame=True)
        >>> model = MixedEffectsRegressor(["(1 + Days | Subject)"]).fit(X, y)
        >>> interval = model.conf_int(method="profile", X=X, y=y, parm="sd(Subject, Days)")
        >>> interval.to_numpy().round(1)
        array([[3.8, 8.8]])
        """
        check_is_fitted(self)
        check_level("level", level)
        labels = self._fitted.labels
        wald = tables.wald_intervals(labels, self.result_, level)
        places = intervals.chosen(wald.index, parm)
        if method == "wald":
            return wald.iloc[places]
        if method not in ("profile", "bootstrap"):
            raise ValueError(
                f"method={method!r} is not available: use 'wald', 'profile' or 'bootstrap'."
            )
        if kind not in KINDS:
            raise ValueError(
                f"kind={kind!r} is not available: use {', '.join(map(repr, KINDS[:-1]))} or "
                f"{KINDS[-1]!r}."
            )
        if X is None:
            raise ValueError(
                f"method={method!r} needs the rows of the fit: conf_int(method={method!r}, X=X, "
                "y=y)."
            )
        perfect = self.result_.status is Status.PERFECT
        if self._fitted.spec.sparse or perfect or not self._stops_by_rule():
            raise ValueError(
                f"method={method!r} is not for models with sparse columns, a perfect fit or "
                "m_step='adam': use 'wald'."
            )
        design, response = self._training(X, y, sample_weight)
        if method == "profile":
            found = self._profiled(design, response, places, level, n_jobs)
        else:
            bootstrap.check_draws(response, n_resamples)
            rng, parallel = check_random_state(random_state), {"n_jobs": n_jobs, "verbose": verbose}
            found = self._bootstrapped(design, response, level, kind, n_resamples, rng, parallel)
            found = found[:, places]
        return tables.interval_table([labels.names[i] for i in places], *found)

    def _profiled(self, design, response, places, level, n_jobs):
        """(lower, upper) of the parameters at some places."""
        family, n_predictors = response.family, response.n_predictors
        if self.result_.log_prior is not None:
            raise ValueError(
                "method='profile' is for a likelihood, and this fit has priors (coef_prior, "
                "sd_prior): use 'wald', of the posterior's curvature, or 'bootstrap'."
            )
        e_step = self._fitted.e_step
        if not engine.has_profile(design, family, n_predictors, e_step):
            raise ValueError(
                f"method='profile' needs a likelihood without Monte Carlo error, and e_step="
                f"{e_step!r} has none for these terms: fit by e_step='laplace', of up to some "
                "thousand effects beside the largest term, or use 'bootstrap'."
            )
        labels = self._fitted.labels
        found = engine.profile(
            design,
            response,
            e_step=e_step,
            fit_intercept=self._fitted.spec.fit_intercept,
            start=self.result_,
            matrix=labels.matrix,
            bounds=labels.bounds,
        )
        return intervals.profile_intervals(found, places, level, n_jobs)

    def _bootstrapped(self, design, response, level, kind, n_resamples, rng, parallel):
        """(lower, upper) of all parameters, nan for coefficients that have no standard error."""
        refit, result = partial(self._estimates_of, design, response), self.result_
        drawn = bootstrap.refitted(refit, design, response, result, n_resamples, rng, **parallel)
        if len(drawn) < 2:
            raise ValueError(
                f"n_resamples={n_resamples}: the model could not be fitted to data drawn from "
                "itself: use method='wald'."
            )
        left_out = None
        if kind == "bca":
            left_out = bootstrap.jackknifed(self._estimates_without, design, response, **parallel)
            left_out = np.array(left_out or [drawn[0]])
        labels, (estimate, std) = self._fitted.labels, self._fitted.estimates(self.result_)
        found = intervals.bootstrap_intervals(
            np.array(drawn), estimate.to_numpy(), level, labels.bounds, kind, left_out
        )
        parts = {name for own in self._fitted.models for name in own.names}
        fixed = (np.arange(len(std)) < labels.n_fixed) | std.index.isin(parts)
        unknown = ~np.isfinite(std.to_numpy()) & fixed
        found[:, unknown | labels.undetermined(self.result_)] = np.nan
        return found

    def _estimates_of(self, design, response, y, seed):
        """Estimates of the parameters from another y of the same rows."""
        return self._estimates_without(design, replace(response, y=y), seed)

    def _estimates_without(self, design, response, seed=0):
        """The same from some of the rows."""
        result = self._refitted(design, response, seed)
        return self._fitted.labels.estimates(result.coef, result.natural)

    def _refitted(self, design, response, seed, warm=True):
        """The EMResult of another response, or of some of the rows."""
        other = copy(self)
        other.warm_start, other.verbose, other.random_state = warm, 0, int(seed)
        other.dof = None
        e_step, spec = self._resolved_e_step(design, response), self._fitted.spec
        priors = self._priors(spec, design, response, e_step)
        return other._run(design, response, spec.fit_intercept, e_step, priors=priors)
