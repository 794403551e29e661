"""Confidence intervals of a fitted estimator's parameters."""

from copy import copy

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from sklmm._fitted import intervals, tables
from sklmm.engine import fit as engine
from sklmm.result import Status


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
        n_resamples=500,
        n_jobs=None,
        random_state=None,
    ):
        """Confidence intervals of the coefficients and the variance parameters.

        Parameters
        ----------
        level : float, default=0.95
        method : {"wald", "profile", "bootstrap"}, default="wald"
            "wald" is the estimate and its standard error. "profile" is the profile likelihood, by
            ML, as lme4's: for SDs of few levels it is the one to trust. It is for Gaussian models,
            and for others where quadrature has their likelihood (see `Quadrature`), without priors.
            "bootstrap" fits the model to data drawn from itself: any family, and as many fits.
            Its interval is normal, of the resamples' SD and less their bias.
        X, y, sample_weight
            The rows of the fit, for "profile" and "bootstrap".
        parm : str, int or list of them, optional
            Names of the parameters wanted, or their places from 0 on, as R's confint has it; None
            takes all. A profile of one parameter costs its share of all.
        n_resamples : int, default=500
            Bootstrap fits.
        n_jobs : int, optional
            Processes of joblib's.
        random_state : int, RandomState or None
            Of the bootstrap.

        Returns
        -------
        DataFrame
            Columns lower and upper, one row a parameter.

        Raises
        ------
        ValueError
            Where a method needs rows or a family that it does not have, or for an unknown `parm`.

        References
        ----------
        Bates, Maechler, Bolker & Walker (2015), J. Stat. Softw. 67(1), sec. 5.1.

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
        if not 0 < level < 1:
            raise ValueError(f"level={level!r} must be between 0 and 1.")
        labels = self._fitted.labels
        wald = tables.wald_intervals(labels, self.result_, level)
        places = intervals.chosen(wald.index, parm)
        if method == "wald":
            return wald.iloc[places]
        if method not in ("profile", "bootstrap"):
            raise ValueError(
                f"method={method!r} is not available: use 'wald', 'profile' or 'bootstrap'."
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
            intervals.check_draws(response, n_resamples)
            rng = check_random_state(random_state)
            found = self._bootstrapped(design, response, level, n_resamples, n_jobs, rng)[:, places]
        return tables.interval_table([labels.names[i] for i in places], *found)

    def _profiled(self, design, response, places, level, n_jobs):
        """(lower, upper) of the parameters at some places."""
        family, n_predictors = response.family, response.n_predictors
        if self.result_.log_prior is not None:
            raise ValueError(
                "method='profile' is for a likelihood, and this fit has priors (coef_prior, "
                "sd_prior): use 'wald', of the posterior's curvature, or 'bootstrap'."
            )
        exact = family.closed_form or family.quadratic
        if not (exact or engine.has_quadrature(design, family, n_predictors)):
            raise ValueError(
                f"method='profile' needs a likelihood without error, which family={family.name!r} "
                "has for one grouping factor or nested ones, with few effects a level: use "
                "'bootstrap'."
            )
        labels = self._fitted.labels
        found = engine.profile(
            design,
            response,
            fit_intercept=self._fitted.spec.fit_intercept,
            start=self.result_,
            matrix=labels.matrix,
            bounds=labels.bounds,
        )
        return intervals.profile_intervals(found, places, level, n_jobs)

    def _bootstrapped(self, design, response, level, n_resamples, n_jobs, rng):
        """(lower, upper) of all parameters, nan for those that have no standard error."""
        drawn = intervals.bootstrap_estimates(
            self._refitted, design, response, self.result_, n_resamples, n_jobs, rng
        )
        labels, (estimate, std) = self._fitted.labels, self._fitted.estimates(self.result_)
        found = intervals.bootstrap_intervals(drawn, estimate, level, labels.bounds)
        unknown = np.isnan(std.to_numpy()) & (np.arange(len(std)) < labels.n_fixed)
        found[:, unknown | labels.undetermined(self.result_)] = np.nan
        return found

    def _refitted(self, design, response, seed):
        """Estimates of the parameters from another response to the same rows."""
        other = copy(self)
        other.warm_start, other.verbose, other.random_state = True, 0, int(seed)
        other.dof = None
        e_step, spec = self._resolved_e_step(design, response), self._fitted.spec
        priors = self._priors(spec, design, response, e_step)
        result = other._run(design, response, spec.fit_intercept, e_step, priors=priors)
        return self._fitted.labels.estimates(result.coef, result.natural)
