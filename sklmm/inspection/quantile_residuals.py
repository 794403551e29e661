"""`QuantileResidualsDisplay`: how the responses of a fit lie in the distributions predicted."""

import numpy as np
import pandas as pd
from scipy.special import ndtri
from scipy.stats import norm
from sklearn.utils.validation import check_is_fitted

from sklmm._fitted.residuals import dispersion, uniformity, zeros
from sklmm.design.columns import take_columns
from sklmm.inspection._display import Display, histogram, named, normal_quantiles

KINDS = ("uniformity", "dispersion", "zeros", "group")
#: Rows up to which each has a point, and points of a line of quantiles.
MOST_POINTS, LINE_POINTS = 5000, 512
#: Bands of rows with quantiles of their own, and the least number of rows of each.
MOST_BANDS, BAND = 20, 15
QUARTILES = (0.25, 0.5, 0.75)
#: Groups that are named, each with an interval of its own.
MOST_GROUPS = 40


class QuantileResidualsDisplay(Display):
    """Quantile residuals: uniform on (0, 1), whatever the family, under the right model.

    Parameters
    ----------
    residuals : ndarray of shape (n_rows,)
    predicted : ndarray of shape (n_rows,)
        Mean response given the draw of the effects that the residuals are of, of classes that of
        their places 0..K-1.
    groups : Series of shape (n_rows,) or None
        Level of each row.
    zeros : tuple of (float, float, float, float) or None
        Number of zeros, its expectation and SD under the model, and the p value.

    Attributes
    ----------
    figure_, ax_ : matplotlib Figure, Axes

    Examples
    --------
    >>> from sklmm import MixedEffectsRegressor
    >>> from sklmm.datasets import load_sleepstudy
    >>> from sklmm.inspection import QuantileResidualsDisplay
    >>> X, y = load_sleepstudy(return_X_y=True, as_frame=True)
    >>> model = MixedEffectsRegressor(["(1 + Days | Subject)"]).fit(X, y)
    >>> display = QuantileResidualsDisplay.from_estimator(model, X, y, random_state=0)
    >>> display.ax_.get_ylabel()
    'quantile residual'
    """

    residuals: np.ndarray
    predicted: np.ndarray
    groups: pd.Series | None
    zeros: tuple | None

    @classmethod
    def from_estimator(
        cls,
        estimator,
        X,
        y=None,
        sample_weight=None,
        *,
        kind="uniformity",
        group=None,
        conditional=True,
        random_state=None,
        ax=None,
    ):
        """Draw the quantile residuals of the rows of the fit.

        Parameters
        ----------
        estimator : MixedEffectsRegressor or MixedEffectsClassifier
        X, y, sample_weight
            The rows of the fit; y is None where a formula names it.
        kind : {"uniformity", "dispersion", "zeros", "group"}, default="uniformity"
        group : str, int or array-like of shape (n_rows,), optional
            A term's name, a column of X, or levels, by which residuals are grouped; by default the
            first term of the model.
        conditional : bool, default=True
        random_state : int, RandomState or None
            As in the estimator's `quantile_residuals`.
        ax : Axes, optional

        Returns
        -------
        QuantileResidualsDisplay

        Raises
        ------
        ValueError
            As `quantile_residuals` does, and for zeros where the response has none.
        """
        check_is_fitted(estimator)
        response, found = estimator._quantile_residuals(
            X, y, sample_weight, conditional, random_state, with_zeros=kind == "zeros"
        )
        groups = None
        if kind == "group":
            groups = _groups(estimator, X, group)[estimator._kept(X, y, sample_weight)]
        display = cls(
            residuals=found.u, predicted=found.mean, groups=groups, zeros=_zeros(found, response)
        )
        return display.plot(kind=kind, ax=ax)

    def plot(self, *, kind="uniformity", ax=None):
        """Draw.

        Parameters
        ----------
        kind : {"uniformity", "dispersion", "zeros", "group"}, default="uniformity"
            "uniformity" has the residuals in order against those of a uniform distribution, and
            the band that all are within in 95 of 100 sets under the right model. "dispersion" has
            them against the ranks of the means, with the quartiles of bands of rows, which are to
            lie on the broken lines. "zeros" has the number of zeros, and how it is
            distributed under the model. "group" has the means of normal residuals by group, in
            standard errors.
        ax : Axes, optional

        Returns
        -------
        QuantileResidualsDisplay
        """
        kind = named(kind, KINDS, "kind")
        self.figure_, (self.ax_,) = self._new_axes(1, ax)
        getattr(self, f"_{kind}")()
        return self

    def _uniformity(self):
        n = len(self.residuals)
        own = np.sort(self.residuals)
        places = np.unique(np.linspace(0, n - 1, min(n, LINE_POINTS)).astype(int))
        theory = (places + 0.5) / n
        # Of Kolmogorov's distribution.
        wide = 1.358 / np.sqrt(n)
        line = np.array([0.0, 1.0])
        self.ax_.fill_between(line, line - wide, line + wide, color="0.9", zorder=0)
        self.ax_.axline((0, 0), slope=1, color="0.5", linewidth=1, zorder=1)
        self.ax_.plot(theory, own[places], ".", color="C0", markersize=3)
        self.ax_.set(
            xlabel="uniform quantile",
            ylabel="quantile residual",
            xlim=(0, 1),
            ylim=(0, 1),
            title=f"Kolmogorov-Smirnov p = {uniformity(self.residuals).p:.2g}",
        )

    def _dispersion(self):
        n = len(self.residuals)
        order = np.argsort(self.predicted, kind="stable")
        ranks, own = (np.arange(n) + 0.5) / n, self.residuals[order]
        if n <= MOST_POINTS:
            self.ax_.plot(ranks, own, ".", color="C0", markersize=3, alpha=0.5)
        else:
            # Evenly filled under the right model.
            self.ax_.hexbin(ranks, own, gridsize=30, cmap="Blues", vmin=0, linewidths=0.1)
        bands = np.array_split(np.arange(n), min(max(n // BAND, 1), MOST_BANDS))
        middle = [ranks[band].mean() for band in bands]
        for q in QUARTILES:
            self.ax_.axhline(q, color="0.3", linewidth=1, linestyle="--")
            self.ax_.plot(middle, [np.quantile(own[band], q) for band in bands], color="C3")
        found = dispersion(self.residuals)
        self.ax_.set(
            xlabel="mean given the effects drawn (rank)",
            ylabel="quantile residual",
            xlim=(0, 1),
            ylim=(0, 1),
            title=f"dispersion {found.statistic:.3g} of 1, p = {found.p:.2g}",
        )

    def _zeros(self):
        if self.zeros is None:
            raise ValueError(
                "kind='zeros': the response has no zeros of its own, or the display was made for "
                "another kind: use from_estimator(..., kind='zeros') for counts or shares."
            )
        found, mean, sd, p = self.zeros
        wide = 4 * max(sd, 0.25)
        x = np.linspace(min(mean - wide, found), max(mean + wide, found), 401)
        self.ax_.fill_between(x, norm.pdf(x, mean, max(sd, 0.25)), color="C0", alpha=0.3)
        self.ax_.axvline(mean, color="C0", linewidth=1, label=f"expected {mean:.4g}")
        self.ax_.axvline(found, color="C3", label=f"observed {found:.4g}")
        self.ax_.set(xlabel="zeros", ylabel="density", title=f"p = {p:.2g}")
        self.ax_.set_ylim(0)
        self.ax_.legend(frameon=False)

    def _group(self):
        if self.groups is None:
            raise ValueError(
                "kind='group': the display was made for another kind: use "
                "from_estimator(..., kind='group')."
            )
        found = pd.Series(ndtri(self.residuals)).groupby(np.asarray(self.groups), observed=True)
        means, sizes = found.mean(), found.size()
        scores = means * np.sqrt(sizes)
        if len(means) > MOST_GROUPS:
            some = np.sort(scores.to_numpy())
            if len(some) > MOST_POINTS:
                histogram(some, 1.0, self.ax_, color="C0", alpha=0.6)
                self.ax_.set(xlabel="mean normal residual of a group [standard errors]")
                return
            normal_quantiles(some, self.ax_, color="C0", markersize=4)
            self.ax_.set(ylabel="mean residual of a group [SE]")
            return
        order = np.argsort(means.to_numpy())
        places, half = np.arange(len(order)), norm.ppf(0.975) / np.sqrt(sizes.iloc[order])
        means = means.iloc[order]
        self.ax_.hlines(places, means - half, means + half, color="C0", linewidth=1, alpha=0.6)
        self.ax_.plot(means, places, ".", color="C0", markersize=4)
        self.ax_.axvline(0.0, color="0.5", linewidth=1, zorder=0)
        self.ax_.set_yticks(places, means.index.map(str), fontsize=7)
        self.ax_.set(xlabel="mean normal residual, 95 % interval")


def _groups(estimator, X, group):
    """Level of each row, a Series."""
    terms = {term.name: term.effect.columns for term in estimator._fitted.spec.every_term}
    if group is None:
        if not terms:
            raise ValueError("group: the model has no grouping column: give one, or levels.")
        group = next(iter(terms))
    if not (isinstance(group, str) and group in terms):
        return estimator._labels(group, "group", X)
    frame = take_columns(estimator._validate_new(X), terms[group])
    levels = frame.astype(str).agg(":".join, axis=1) if frame.shape[1] > 1 else frame.iloc[:, 0]
    return levels.reset_index(drop=True)


def _zeros(found, response):
    test = zeros(found, response.y)
    if test is None:
        return None
    p = found.zeros
    return test.statistic, test.expected, float(np.sqrt(np.sum(p * (1 - p)))), test.p
