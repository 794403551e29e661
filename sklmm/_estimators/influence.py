"""What single rows and groups do to the estimates."""

import numpy as np
import pandas as pd
from sklearn.utils.validation import check_is_fitted

from sklmm._estimators.input import as_pandas
from sklmm._fitted import influence
from sklmm._fitted.weighted import Rows
from sklmm._tables import Table
from sklmm._threads import single_blas
from sklmm.result import Status, at_infinity


class Influence:
    """Methods of a fitted `BaseMixedEffects` that tell what rows and groups do to the estimates."""

    def influence(self, X, y=None, sample_weight=None, *, by=None):
        """What the coefficients would be without each row, or without each group of rows.

        In closed form, without a fit again. Of Gaussian models it is exact given the estimated
        variances; of others it is one Newton step of the likelihood, whose effects are integrated
        out. For groups the variances, too, are moved by a Newton step, but those of related levels
        or on their boundary; so the groups come out in the order of fits without each of them.

        Parameters
        ----------
        X, y, sample_weight
            The rows of the fit; y is None where a formula names it.
        by : str, int or array-like of shape (n_rows,), optional
            The groups that are left out, one at a time: a term's name, a column of X, or one label
            a row. None leaves out single rows (of repetitions, all of a row's).

        Returns
        -------
        DataFrame
            One row for each of X's that counts, by X's index, or for each group by its label, with
            n_rows of the latter. In columns:

            - leverage: how much the fitted value, effects included, follows the row's own y, 0 to
              1: lme4's ``hatvalues``, for other families in units of their information. Of a group
              it is the sum over its rows. All add up to the effective number of parameters.
            - cooks_distance: d^T C^-1 d / p, with d the change of the p coefficients that the
              deletion makes and C their covariance, ``result_.coef_cov``.
            - "dfbetas: name": the change, estimate less the one without the rows, in standard
              errors of the latter.

            nan where the rows left do not determine the coefficients.

        Raises
        ------
        ValueError
            For several predictors a row ("ordinal", "categorical", parts with effects), families of
            your own without a density, sparse columns, infinite coefficients or a perfect fit;
            beyond 10,000 coefficients and effects beside those of the largest term; for columns so
            far from 0 that their squares hide what they vary by; and for rows that are not those of
            the fit.

        References
        ----------
        Demidenko & Stukel (2005), Stat. Med. 24, 893-909.
        Nieuwenhuis, te Grotenhuis & Pelzer (2012), The R Journal 4(2), 38-47 (influence.ME).

        Examples
        --------
        >>> from sklmm import MixedEffectsRegressor
        >>> from sklmm.datasets import load_sleepstudy
        >>> X, y = load_sleepstudy(return_X_y=True, as_frame=True)
        >>> model = MixedEffectsRegressor(["(1 + Days | Subject)"]).fit(X, y)
        >>> table = model.influence(X, y, by="Subject")
        >>> table["cooks_distance"].nlargest(2).round(2).to_dict()
        {309: 0.15, 335: 0.13}
        """
        check_is_fitted(self)
        self._check_influence()
        design, response = self._training(X, y, sample_weight)
        result, fitted = self.result_, self._fitted
        kept = ~result.dropped[: design.X.shape[1]]
        influence.check_size(design, kept.sum())
        names = np.array(fitted.labels.coef[: len(kept)], object)[kept]
        influence.check_columns(design.X[:, kept], names)
        parameters, prior = fitted.parameters(result, design), self._precisions(design, response)
        table = {}
        if by is None:
            given = as_pandas(X)
            index = given.index if isinstance(given, pd.DataFrame) else pd.RangeIndex(len(given))
            index = index[self._kept(X, y, sample_weight)]
        else:
            codes, index = self._groups(by, "by", X, y, sample_weight, design)
            index = pd.Index(index, name=by if isinstance(by, str) else getattr(by, "name", None))
            table["n_rows"] = np.bincount(codes, minlength=len(index))
        # Its products are small, or a block of rows each, which have the threads; and of a large
        # inverse BLAS's threads wait for one another longer than they work, where cores are shared.
        with single_blas():
            rows = Rows.of(design, response, result, parameters, prior)
            if by is None:
                found = influence.of_single_rows(rows)
            else:
                found = influence.of_groups(rows, codes, len(index))
                found = influence.with_variances(found, rows, result)
        p = len(kept)
        cov = result.coef_cov[:p, :p][np.ix_(kept, kept)]
        table["leverage"] = found.leverage
        table["cooks_distance"] = influence.cooks_distances(found, cov)
        changes = influence.scaled_changes(found, cov)
        table |= {f"dfbetas: {name}": own for name, own in zip(names, changes.T, strict=True)}
        return Table(table, index=index)

    def _infinite(self):
        """Names of the mean's coefficients without a finite estimate."""
        labels = self._fitted.labels
        far = at_infinity(self.result_, labels.matrix)[: labels.n_fixed]
        return [name for name, own in zip(labels.names, far, strict=False) if own]

    def _precisions(self, design, response):
        """Prior precisions [p] of the coefficients, 0 of those without a prior."""
        p = design.X.shape[1]
        priors = self._priors(self._fitted.spec, design, response, self._fitted.e_step)
        return np.zeros(p) if priors is None else priors.coef[:p] ** -2.0

    def _check_influence(self):
        """Raise ValueError for a model whose rows have no weights of one predictor."""
        fitted = self._fitted
        family, why = fitted.family, None
        if fitted.n_predictors > 1 or family.classes == "ordered":
            why = f"family={family.name!r} has several predictors or cutpoints a row"
        elif not family.closed_form and family.density is None:
            why = f"family={family.name!r} has no derivatives in NumPy"
        elif fitted.spec.sparse:
            why = "X: the model keeps sparse columns apart"
        elif not self.result_.rank:
            why = "fixed_effects: the model has no coefficients"
        elif self.result_.status is Status.PERFECT:
            why = "y: the fit is a perfect one, and no row moves it"
        elif infinite := self._infinite():
            raise ValueError(
                f"X: the coefficients of {', '.join(map(repr, infinite))} are infinite, as they "
                "tell some rows apart for certain, and no row moves them: fit without these "
                "columns and the rows that they tell apart, which say nothing of the others, or "
                "give a coef_prior."
            )
        if why is not None:
            raise ValueError(
                f"{why}, which influence is not for: fit without the rows or groups in question, "
                "with warm_start=True, and compare fixed_effects_."
            )
