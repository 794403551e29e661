"""`ResidualsDisplay`: what a model leaves of y."""

import numpy as np
from sklearn.utils.validation import check_is_fitted

from sklmm.inspection._display import Display, histogram, named, normal_quantiles

KINDS = ("fitted", "histogram", "qq")
MOST_POINTS = 5000


class ResidualsDisplay(Display):
    """Residuals y - prediction, in SDs of the response given the prediction.

    Of a level that the fit has not seen the SD is that of a new observation, as `predict` has it.

    Parameters
    ----------
    fitted : ndarray of shape (n_rows,)
    residuals : ndarray of shape (n_rows,)
    sd : float
        The SD that they have under the model.

    Attributes
    ----------
    figure_, ax_ : matplotlib Figure, Axes

    Examples
    --------
    >>> from sklmm import MixedEffectsRegressor
    >>> from sklmm.datasets import load_sleepstudy
    >>> from sklmm.inspection import ResidualsDisplay
    >>> X, y = load_sleepstudy(return_X_y=True, as_frame=True)
    >>> model = MixedEffectsRegressor(["(1 + Days | Subject)"]).fit(X, y)
    >>> ResidualsDisplay.from_estimator(model, X, y).ax_.get_ylabel()
    'residual'
    """

    fitted: np.ndarray
    residuals: np.ndarray
    sd: float

    @classmethod
    def from_estimator(cls, estimator, X, y, sample_weight=None, *, kind="fitted", ax=None):
        """Draw the residuals of rows.

        Parameters
        ----------
        estimator : MixedEffectsRegressor
            Of any family: Pearson residuals, divided by the SD of y given its mean, where that is
            not the same everywhere.
        X, y : table and response
        sample_weight : array-like of shape (n_rows,), optional
            Trials of a binomial response, or precisions, that divide the variance.
        kind : {"fitted", "histogram", "qq"}, default="fitted"
        ax : Axes, optional

        Returns
        -------
        ResidualsDisplay
        """
        check_is_fitted(estimator)
        if not hasattr(estimator, "_response_family"):
            raise ValueError(
                "estimator: classes have no residuals; ResidualsDisplay is for a "
                "MixedEffectsRegressor."
            )
        fitted, family = estimator.predict(X), estimator._fitted.family
        if family.open_ended:
            raise ValueError("y: it has bounds, and residuals want values.")
        response = family.bind(y, sample_weight) if family.row_data else None
        y, trials = (y if response is None else response.y), None
        if family.weights == "trials":
            bound = family.bind(y, sample_weight)
            y, trials = bound.y, bound.weights
        elif family.weights == "precision" and sample_weight is not None:
            trials = np.asarray(sample_weight, float)
        variance = estimator._residual_variance(X, response, trials)
        residuals, sd = np.asarray(y, float) - fitted, np.sqrt(variance)
        if not np.allclose(sd, sd[0]):
            residuals, sd = residuals / sd, np.ones(1)
        return cls(fitted=fitted, residuals=residuals, sd=float(sd[0])).plot(kind=kind, ax=ax)

    def plot(self, *, kind="fitted", ax=None):
        """Draw.

        Parameters
        ----------
        kind : {"fitted", "histogram", "qq"}, default="fitted"
            Against the fitted values, of at most 5,000 rows; their density beside the model's
            normal one; or their quantiles beside a normal distribution's.
        ax : Axes, optional

        Returns
        -------
        ResidualsDisplay
        """
        kind = named(kind, KINDS, "kind")
        self.figure_, (self.ax_,) = self._new_axes(1, ax)
        some = slice(None, None, -(-len(self.residuals) // MOST_POINTS))
        if kind == "fitted":
            self.ax_.plot(self.fitted[some], self.residuals[some], ".", markersize=3, alpha=0.5)
            self.ax_.axhline(0.0, color="0.5", linewidth=1, zorder=0)
            self.ax_.set(xlabel="fitted value", ylabel="residual")
        elif kind == "histogram":
            histogram(self.residuals, self.sd, self.ax_, color="C0", alpha=0.6)
            self.ax_.set(xlabel="residual")
        else:
            normal_quantiles(self.residuals[some], self.ax_, color="C0", markersize=3)
            self.ax_.set(ylabel="residual")
        return self
