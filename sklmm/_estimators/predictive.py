"""The distribution that a fitted model predicts for new rows: intervals, quantiles, residuals."""

import numpy as np
from sklearn.utils.validation import check_is_fitted

from sklmm._estimators.input import check_level, check_weights, generator
from sklmm._estimators.new_rows import nan_where_missing
from sklmm._fitted.quantiles import predict_quantiles
from sklmm._fitted.residuals import quantile_residuals
from sklmm.result import Status


class Residuals:
    """Methods of a fitted estimator that compare the response with its distribution."""

    def quantile_residuals(
        self, X, y=None, sample_weight=None, *, conditional=True, random_state=None
    ):
        """Quantile residuals of the rows of the fit: uniform on (0, 1) under the right model.

        A row's residual is the probability of a smaller response, F(y); where y has a probability
        of its own, a random number between P(Y < y) and P(Y <= y). Of censored rows it is one
        between those of the bounds. Small ones are of a y that is smaller than the model expects.

        Parameters
        ----------
        X : DataFrame, array-like or sparse matrix of shape (n_rows, n_columns)
        y : array-like of shape (n_rows,), optional
            None where a formula names it.
        sample_weight : array-like of shape (n_rows,), optional
            As in `fit`. Repetitions of a row have one residual.
        conditional : bool, default=True
            True: given effects and coefficients, of which one draw is made from their posterior;
            the residuals are then independent of one another. (At the posterior mean, which is
            nearer to the data than the true effects are, they would be too near to 1/2.) False: the
            effects are averaged over their prior; the residuals of a group then depend on one
            another, and tell of the effects' distribution too.
        random_state : int, RandomState or None, default=None
            Of the draw, and of the numbers between two probabilities: another one, other residuals.

        Returns
        -------
        ndarray of shape (n_rows,)
            nan in rows that the fit left out: of weight 0, or with missing="drop" incomplete.

        Raises
        ------
        ValueError
            For rows that are not those of the fit, for classes without an order and for a perfect
            fit.

        See Also
        --------
        sklmm.inspection.QuantileResidualsDisplay : Draws them.

        References
        ----------
        Dunn & Smyth (1996), "Randomized quantile residuals", J. Comput. Graph. Stat. 5, 236-244.

        Examples
        --------
        >>> from sklmm import MixedEffectsRegressor
        >>> from sklmm.datasets import load_sleepstudy
        >>> X, y = load_sleepstudy(return_X_y=True, as_frame=True)
        >>> model = MixedEffectsRegressor(["(1 + Days | Subject)"]).fit(X, y)
        >>> u = model.quantile_residuals(X, y, random_state=0)
        >>> u.shape, bool(u.min() > 0), bool(u.max() < 1)
        ((180,), True, True)
        """
        _, found = self._quantile_residuals(X, y, sample_weight, conditional, random_state)
        return self._in_every_row(found.u, X, y, sample_weight)

    def _quantile_residuals(self, X, y, sample_weight, conditional, random_state, with_zeros=False):
        """(`Response`, `QuantileResiduals`) of the rows of the fit that count."""
        check_is_fitted(self)
        if self._fitted.family.classes == "unordered":
            raise ValueError(
                f"quantile_residuals: the classes of family={self._fitted.family.name!r} have no "
                "order, and their distribution no quantiles: use family='ordinal' for ordered "
                "ones, or compare y with predict_proba, class by class."
            )
        if self.result_.status is Status.PERFECT:
            raise ValueError("X: the fit is a perfect one, and leaves no residuals.")
        design, response = self._training(X, y, sample_weight)
        rng = generator(random_state)
        return response, quantile_residuals(
            design, response, self.result_, rng, conditional, with_zeros
        )


class Predictive(Residuals):
    """Methods of a fitted regressor that tell the distribution of a new observation."""

    @nan_where_missing
    def predict_interval(self, X, coverage=0.95, include_random=True, *, sample_weight=None):
        """Prediction intervals of a new observation, row by row.

        They are equal-tailed: y lies below with probability (1 - coverage) / 2, and above. What
        varies is y about its mean, the effects and the coefficients by their posterior, and the
        effects of unseen, missing or left out levels by their prior, whatever `handle_unknown` says
        of the mean. The variances and the family's parameters are taken as known.

        Parameters
        ----------
        X : DataFrame, array-like or sparse matrix of shape (n_rows, n_columns)
        coverage : float, default=0.95
            Probability that a new observation is within, between 0 and 1. Of whole numbers it is at
            least that: more for counts of a small mean, and most intervals of a 0 or 1 hold both.
        include_random : bool or list of str, default=True
            False knows no effects; a list names the terms whose effects are known.
        sample_weight : array-like of shape (n_rows,), optional
            The trials of "binomial" and "beta_binomial" shares, 1 if not given; the precisions of
            ``Gaussian(weights="precision")``. Of no meaning for others.

        Returns
        -------
        ndarray of shape (n_rows, 2)
            Lower and upper ends, in y's units: whole numbers of counts, ratings of "ordinal".

        Raises
        ------
        ValueError, TypeError
            For a `coverage` that is not between 0 and 1; naming a column that is missing or not as
            in the fit, and the remedy; for an unseen level, with handle_unknown="error".

        Examples
        --------
        >>> from sklmm import MixedEffectsRegressor
        >>> from sklmm.datasets import load_sleepstudy
        >>> X, y = load_sleepstudy(return_X_y=True, as_frame=True)
        >>> model = MixedEffectsRegressor(["(1 + Days | Subject)"]).fit(X, y)
        >>> model.predict_interval(X[:2]).round(1)
        array([[198.1, 309.3],
               [219.1, 327.6]])
        >>> model.predict_interval(X[:2].assign(Subject=999)).round(1)
        array([[180.4, 322.4],
               [189.4, 334.3]])
        """
        check_level("coverage", coverage)
        tail = (1 - coverage) / 2
        return self._quantiles(X, (tail, 1 - tail), include_random, sample_weight)

    @nan_where_missing
    def predict_quantiles(self, X, q, include_random=True, *, sample_weight=None):
        """Quantiles of a new observation, row by row.

        Parameters
        ----------
        X : DataFrame, array-like or sparse matrix of shape (n_rows, n_columns)
        q : float or array-like of shape (n_quantiles,)
            Probabilities between 0 and 1. The quantile is the least y that is not exceeded with at
            least so much.
        include_random : bool or list of str, default=True
        sample_weight : array-like of shape (n_rows,), optional
            As in `predict_interval`, which says too what varies.

        Returns
        -------
        ndarray of shape (n_rows, n_quantiles)

        Raises
        ------
        ValueError, TypeError
            As in `predict_interval`, and for a `q` that is not between 0 and 1.

        Examples
        --------
        >>> from sklmm import MixedEffectsRegressor
        >>> from sklmm.datasets import load_cbpp
        >>> X, y = load_cbpp(return_X_y=True, as_frame=True)
        >>> model = MixedEffectsRegressor(
        ...     ["herd"], fixed_effects="~ C(period)", family="binomial", e_step="laplace"
        ... )
        >>> trials = X["size"]
        >>> model = model.fit(X, y / trials, sample_weight=trials)
        >>> shares = model.predict_quantiles(X[:2], [0.1, 0.9], sample_weight=trials[:2])
        >>> (shares.T * trials[:2].to_numpy()).T.round().tolist()
        [[2.0, 7.0], [0.0, 4.0]]
        """
        try:
            levels = np.atleast_1d(np.asarray(q, float))
        except (TypeError, ValueError):
            levels = np.empty(0)
        if levels.ndim != 1 or not len(levels) or not ((levels > 0) & (levels < 1)).all():
            raise ValueError(f"q={q!r} must be numbers between 0 and 1.")
        return self._quantiles(X, levels, include_random, sample_weight)

    def _quantiles(self, X, q, include_random, sample_weight):
        _, design, include = self._new_design(X, include_random)
        model, result = self._fitted, self.result_
        params = model.parameters(result, design)
        if sample_weight is not None:
            params = _weighted(model.family, params, sample_weight, design.n_rows)
        found = predict_quantiles(
            design, result, model.family, include, params, q, model.n_predictors
        )
        return found if model.classes is None else model.classes[found.astype(int)]


def _weighted(family, params, sample_weight, n_rows):
    """The parameters with the trials, or the precisions, of new rows."""
    weights = check_weights(sample_weight, n_rows, some=False)
    if family.weights == "precision":
        bad, want = weights <= 0, "a positive precision"
        params = {**params, "sigma": params["sigma"] / np.sqrt(np.where(bad, 1, weights))[:, None]}
    elif family.weights == "trials" or "trials" in family.row_data:
        bad, want = (weights < 1) | (weights != np.round(weights)), "a whole number of trials"
        params = {**params, "trials": weights[:, None]}
    else:
        raise ValueError(
            f"sample_weight: a new observation of family={family.name!r} has neither trials nor a "
            "precision: leave it out."
        )
    if bad.any():
        row = int(np.argmax(bad))
        raise ValueError(f"sample_weight: {weights[row]:g} (row {row}) must be {want}.")
    return params
