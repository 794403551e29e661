"""One table of what may be wrong with a fitted model, in plain words."""

import pandas as pd
from sklearn.utils.validation import check_is_fitted

from sklmm._estimators.input import generator
from sklmm._fitted import checks
from sklmm._fitted.latent import linear_predictor
from sklmm._fitted.residuals import quantile_residuals
from sklmm._tables import Findings
from sklmm.result import Status


class Checks:
    """Methods of a fitted `BaseMixedEffects` that check the model."""

    def check(self, X, y=None, sample_weight=None, *, random_state=None):
        """Check the model's assumptions on the rows of the fit: one table, in plain words.

        Its rows, of which a model has those that it can have:

        - convergence: the last step, in standard errors;
        - singular fit: the least eigenvalue of a term's correlations, 0 where a variance is 0;
        - collinearity: the largest variance inflation factor of a term of the fixed part, and of
          each part of the model;
        - overdispersion of counts and shares: Pearson's chi-square at the effects' means over its
          degrees of freedom;
        - uniformity of quantile residuals, by Kolmogorov and Smirnov's test, dispersion: their mean
          square on the normal scale, and outliers: rows beyond what is likely of the largest
          (Bonferroni). See `quantile_residuals`;
        - zeros: their expected number over the observed one, inf where there is none though some
          are likely.

        Parameters
        ----------
        X, y, sample_weight
            The rows of the fit, as in `fit`.
        random_state : int, RandomState or None, default=None
            Of quantile residuals, beside the fit's own, of which the posterior's draws are.

        Returns
        -------
        DataFrame
            value, statistic, p, verdict ("ok", "doubtful" or "problem") and meaning, a sentence;
            one row a check. It prints as sentences. With p of 5 % or more, or a deviation that is
            too small to matter (5 % of a dispersion or of the zeros, 0.02 of uniformity), it is
            "ok".

        Raises
        ------
        ValueError
            For rows that are not those of the fit.

        References
        ----------
        Luedecke, Ben-Shachar, Patil, Waggoner & Makowski (2021), J. Open Source Softw. 6(60), 3139.
        Dunn & Smyth (1996), J. Comput. Graph. Stat. 5, 236-244.

        Examples
        --------
        >>> from sklmm import MixedEffectsRegressor
        >>> from sklmm.datasets import load_epil2
        >>> table = load_epil2(as_frame=True).frame
        >>> model = MixedEffectsRegressor.from_formula(
        ...     "y ~ Base + trt + Age + (1 | subject)", family="poisson", e_step="laplace"
        ... )
        >>> found = model.fit(table).check(table, random_state=0)
        >>> round(float(found.loc["overdispersion", "value"]), 1)
        1.6
        >>> found.loc["overdispersion", "verdict"]
        'problem'
        """
        check_is_fitted(self)
        model, result = self._fitted, self.result_
        design, response = self._training(X, y, sample_weight)
        found = [checks.convergence(result)]
        if model.spec.every_term:
            found.append(checks.singularity(model.labels, result))
        found += checks.collinearity(model, result)
        if result.status is not Status.PERFECT and model.family.classes != "unordered":
            params = response.with_data(model.parameters(result, design))
            if checks.is_counted(response, params):
                eta = linear_predictor(design, result, d=model.n_predictors)
                found += checks.overdispersion(response, eta, params, result)
            rng = generator(random_state)
            told = quantile_residuals(design, response, result, rng, True, True)
            inflated = bool(model.part_names("zero_inflation"))
            found += checks.residuals(told, response, inflated)
        names, *columns = zip(*found, strict=True)
        columns = dict(zip(checks.Finding._fields[1:], columns, strict=True))
        return Findings(columns, index=pd.Index(names, name="check"))
