"""What a fitted estimator tells of itself: its summary, chains, R^2 and graph, and the rest."""

import numpy as np
from sklearn.utils.validation import check_is_fitted

from sklmm._estimators.checks import Checks
from sklmm._estimators.hypotheses import Hypotheses
from sklmm._estimators.influence import Influence
from sklmm._estimators.input import generator
from sklmm._estimators.marginal import MarginalMeans
from sklmm._estimators.tidying import Tidying
from sklmm._estimators.uncertainty import Intervals
from sklmm._fitted import measures, tables
from sklmm.engine import fit as engine
from sklmm.result import Status


class Reports(Hypotheses, Intervals, MarginalMeans, Influence, Checks, Tidying):
    """Methods of a fitted `BaseMixedEffects`."""

    @property
    def loglik_(self):
        """The log-likelihood, nan where there is none."""
        return np.nan if self.result_.loglik is None else self.result_.loglik

    @property
    def loglik_error_(self):
        """Monte Carlo standard error of `loglik_`."""
        return self.result_.loglik_error

    @property
    def log_posterior_(self):
        """`loglik_` with the log prior densities: what a fit with priors maximises."""
        return self.loglik_ + (self.result_.log_prior or 0.0)

    @property
    def aic_(self):
        """Akaike's information criterion."""
        return tables.information_criteria(self.result_)[0]

    @property
    def bic_(self):
        """Schwarz's information criterion."""
        return tables.information_criteria(self.result_)[1]

    def summary(self):
        """Report in the manner of lme4's `summary`.

        Returns
        -------
        Summary
            A str, which a notebook shows as HTML tables; its methods ``to_latex()`` and
            ``to_markdown()`` write it so (``pip install "sklmm[reports]"``).

        Examples
        --------
        >>> from sklmm import MixedEffectsRegressor
        >>> from sklmm.datasets import load_dyestuff
        >>> X, y = load_dyestuff(return_X_y=True, as_frame=True)
        >>> print(MixedEffectsRegressor(["Batch"]).fit(X, y).summary())  # doctest: +ELLIPSIS
        Linear mixed model fit by REML
        Yield ~ 1 + (1 | Batch)
        converged: the last step is below tol standard errors (... iteration...)
        ...
        """
        # Few programs look at a model in more than one way: each is imported when it is asked for.
        from sklmm.inspection.summary import Summary

        check_is_fitted(self)
        return Summary.of(self)

    def chain_diagnostics(self):
        """Effective sample sizes and R-hat of the Markov chains, by arviz-stats.

        They are those of each chain's own estimates, ``result_.chains``. Chains of a dozen draws,
        as a fit that converges at once leaves, have an R-hat of 1.1 to 1.2 without being at fault;
        what stops the fit is the Monte Carlo error of their mean, `mc_error_`.

        Returns
        -------
        DataFrame
            ess_bulk, ess_tail, rhat; one row a parameter, nan for pinned ones.

        Raises
        ------
        ValueError
            For a model that was not fitted by "hmc" or "nuts".
        ImportError
            Without arviz-stats.

        References
        ----------
        Vehtari, Gelman, Simpson, Carpenter & Buerkner (2021), Bayesian Analysis 16, 667-718.

        Examples
        --------
        >>> from sklmm import MixedEffectsRegressor
        >>> from sklmm.datasets import load_sleepstudy
        >>> X, y = load_sleepstudy(return_X_y=True, as_frame=True)
        >>> model = MixedEffectsRegressor(["Subject"], e_step="hmc", random_state=0).fit(X, y)
        >>> list(model.chain_diagnostics())
        ['ess_bulk', 'ess_tail', 'rhat']
        """
        from sklmm.inspection.arviz import chain_table

        check_is_fitted(self)
        if self.result_.chains is None:
            raise ValueError(
                f"e_step={self.e_step!r} left no chains: fit by 'hmc' or 'nuts' until the "
                "estimates are averaged."
            )
        return chain_table(self._fitted.labels, self.result_)

    def to_arviz(
        self, random_state=None, *, X=None, y=None, sample_weight=None, n_chains=4, n_draws=500
    ):
        """The fit as an ArviZ DataTree.

        Parameters
        ----------
        random_state : int, RandomState or None
            Of the draws.
        X, y, sample_weight
            The rows of the fit, for the groups that are of rows; y is None where a formula names
            it.
        n_chains, n_draws : int, default=4, 500
            Of the posterior. Its draws are independent, and a chain is a part of them.

        Returns
        -------
        xarray.DataTree
            - "posterior": joint draws of ``coefficients`` (and ``cutpoints``) and of each term's
              effects given the estimated variances; ``sd_`` and ``corr_`` of each term, ``sigma``
              and the family's other parameters, of the normal distribution about their estimates
              that Wald's intervals are of (of positive ones of the family in the logarithm).
              Parameters without a standard error do not vary.
            - "chains": by "hmc" and "nuts", each chain's own estimates of the parameters.
            - "iterations": `history_`.
            - With X, "observed_data", "posterior_predictive" and "log_likelihood" by row, for
              ``arviz_stats.loo`` and predictive checks. Classes are their places 0..K-1 in the
              model's order, binomial responses their numbers of successes; a row's repetitions
              are one term of the log-likelihood.

        Raises
        ------
        ImportError
            Without arviz-base.
        ValueError
            For rows that are not those of the fit, for numbers below 1, and for the rows of a
            perfect fit, whose density is infinite.

        Examples
        --------
        >>> from sklmm import MixedEffectsRegressor
        >>> from sklmm.datasets import load_sleepstudy
        >>> X, y = load_sleepstudy(return_X_y=True, as_frame=True)
        >>> model = MixedEffectsRegressor(["(1 + Days | Subject)"]).fit(X, y)
        >>> tree = model.to_arviz(random_state=0, X=X, y=y)
        >>> sorted(tree["posterior"].data_vars)
        ['Subject', 'coefficients', 'corr_Subject', 'sd_Subject', 'sigma']
        >>> dict(tree["log_likelihood"].sizes)
        {'chain': 4, 'draw': 500, 'row': 180}
        """
        from sklmm.inspection.arviz import data_tree

        check_is_fitted(self)
        if not (n_chains >= 1 and n_draws >= 1):
            raise ValueError(f"n_chains={n_chains!r}, n_draws={n_draws!r} must be at least 1.")
        rows = None
        if X is not None:
            if self.result_.status is Status.PERFECT:
                raise ValueError("X: the fit is a perfect one, and its density is infinite.")
            rows = (*self._training(X, y, sample_weight), engine.log_densities)
        rng = generator(random_state)
        return data_tree(self, rng, (n_chains, n_draws), rows)

    def r2(self):
        r"""Marginal and conditional R^2 of the fit: without and with the random effects.

        The shares of the fixed part F, and of F and the random effects R, in the variance
        F + R + D on the scale of the link, D the distribution's own.

        Returns
        -------
        Series
            marginal, conditional.

        Raises
        ------
        ValueError
            For families without such a variance.

        References
        ----------
        Nakagawa, Johnson & Schielzeth (2017), J. R. Soc. Interface 14, 20170213.

        Examples
        --------
        >>> from sklmm import MixedEffectsRegressor
        >>> from sklmm.datasets import load_sleepstudy
        >>> X, y = load_sleepstudy(return_X_y=True, as_frame=True)
        >>> MixedEffectsRegressor(["(1 + Days | Subject)"]).fit(X, y).r2().round(3).tolist()
        [0.279, 0.799]
        """
        check_is_fitted(self)
        return measures.r_squared(self._fitted.family, self.result_, self._fitted.spread)

    def icc(self):
        """Intraclass correlation of each grouping factor: its share of the variance given X.

        Returns
        -------
        Series
            One entry a term: R_k / (R + D), see `r2`.

        Raises
        ------
        ValueError
            As in `r2`.

        Examples
        --------
        >>> from sklmm import MixedEffectsRegressor
        >>> from sklmm.datasets import load_sleepstudy
        >>> X, y = load_sleepstudy(return_X_y=True, as_frame=True)
        >>> MixedEffectsRegressor(["Subject"]).fit(X, y).icc().round(2).to_dict()
        {'Subject': 0.59}
        """
        check_is_fitted(self)
        model = self._fitted
        # Of the mean's terms.
        terms = model.spec.terms if model.family.scale_equivariant else model.spec.every_term
        names = [term.name for term in terms]
        return measures.intraclass_correlations(model.family, self.result_, model.spread, names)

    def model_graph(self):
        """Conditional structure of the fitted model, from its TFP joint distribution.

        Returns
        -------
        tuple of (str, tuple of str)
            Each random variable with those it depends on: TFP's ``resolve_graph()``.

        Examples
        --------
        >>> from sklmm import MixedEffectsRegressor
        >>> from sklmm.datasets import load_sleepstudy
        >>> X, y = load_sleepstudy(return_X_y=True, as_frame=True)
        >>> model = MixedEffectsRegressor(["(1 + Days | Subject)"]).fit(X, y)
        >>> model.model_graph()
        (('Subject', ()), ('y', ('Subject',)))
        """
        check_is_fitted(self)
        return engine.graph(self._fitted.labels.blocks, self.result_)
