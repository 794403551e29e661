"""`InfluenceDisplay`: what the coefficients would be without single rows or groups."""

import numpy as np
import pandas as pd
from sklearn.utils.validation import check_is_fitted

from sklmm.inspection._display import Display, named, short

KINDS = ("cooks_distance", "dfbetas")
#: Rows or groups up to which each has a line of its own, and the bins of more.
MOST_LINES = 400
BEFORE = "dfbetas: "


class InfluenceDisplay(Display):
    """Cook's distances, or the changes of each coefficient, of a table of influence.

    Parameters
    ----------
    influence : DataFrame
        As the method `influence` of a fitted estimator makes it.

    Attributes
    ----------
    figure_, ax_ : matplotlib Figure, Axes

    Examples
    --------
    >>> from sklmm import MixedEffectsRegressor
    >>> from sklmm.datasets import load_sleepstudy
    >>> from sklmm.inspection import InfluenceDisplay
    >>> X, y = load_sleepstudy(return_X_y=True, as_frame=True)
    >>> model = MixedEffectsRegressor(["(1 + Days | Subject)"]).fit(X, y)
    >>> InfluenceDisplay.from_estimator(model, X, y, by="Subject").ax_.get_xlabel()
    'Subject'
    """

    influence: pd.DataFrame

    @classmethod
    def from_estimator(
        cls,
        estimator,
        X,
        y=None,
        sample_weight=None,
        *,
        by=None,
        kind="cooks_distance",
        n_labels=5,
        ax=None,
    ):
        """Draw the influence of the rows of a fit, or of groups of them.

        Parameters
        ----------
        estimator : MixedEffectsRegressor or MixedEffectsClassifier
        X, y, sample_weight, by
            As the estimator's method `influence` takes them.
        kind : {"cooks_distance", "dfbetas"}, default="cooks_distance"
        n_labels : int, default=5
            How many of the largest are named.
        ax : Axes, optional

        Returns
        -------
        InfluenceDisplay
        """
        check_is_fitted(estimator)
        table = estimator.influence(X, y, sample_weight, by=by)
        return cls(influence=table).plot(kind=kind, n_labels=n_labels, ax=ax)

    def plot(self, *, kind="cooks_distance", n_labels=5, ax=None):
        """Draw.

        Parameters
        ----------
        kind : {"cooks_distance", "dfbetas"}, default="cooks_distance"
            Cook's distance of each row or group in the table's order, of more than 400 the largest
            of as many neighbours, and a line at 4 / m of m of them; or each coefficient's changes
            as a box from the first to the third quartile, whiskers from the 1st to the 99th
            percentile and the others as points, and lines at +-2 / sqrt(m).
        n_labels : int, default=5
            How many of the largest are named; of each coefficient half as many.
        ax : Axes, optional

        Returns
        -------
        InfluenceDisplay
        """
        kind = named(kind, KINDS, "kind")
        if kind == "cooks_distance":
            self.figure_, (self.ax_,) = self._new_axes(1, ax)
            self._cooks_distances(n_labels)
        else:
            n = sum(name.startswith(BEFORE) for name in self.influence)
            self.figure_, (self.ax_,) = self._new_axes(1, ax, max(2.4, 0.6 * n + 1))
            self._changes(n_labels)
        return self

    def _cooks_distances(self, n_labels):
        values = self.influence["cooks_distance"].to_numpy()
        n = len(values)
        known = np.nan_to_num(values)
        # Of each bin its largest is drawn.
        edges = np.unique(np.linspace(0, n, min(n, MOST_LINES) + 1).astype(int)[:-1])
        heights = np.maximum.reduceat(known, edges)
        self.ax_.vlines(edges, 0, heights, color="C0", linewidth=1)
        self.ax_.plot(edges, heights, ".", color="C0", markersize=3)
        self.ax_.axhline(4 / n, color="0.5", linewidth=1, linestyle=":", zorder=0)
        of = self.influence.index.name or "row"
        self.ax_.set(ylabel="Cook's distance", xlabel=of, ylim=(0, None), xticks=[])
        self.ax_.margins(x=0.03)
        for place in np.argsort(known)[::-1][:n_labels]:
            x = edges[np.searchsorted(edges, place, side="right") - 1]
            self._label(place, (x, known[place]), (3, 0))

    def _changes(self, n_labels):
        names = [name for name in self.influence if name.startswith(BEFORE)]
        columns = [self.influence[name].dropna().to_numpy() for name in names]
        places = np.arange(len(names), 0, -1)
        for place, name, values in zip(places, names, columns, strict=True):
            low, high = np.quantile(values, [0.01, 0.99]) if len(values) else (0.0, 0.0)
            quartiles = np.quantile(values, [0.25, 0.5, 0.75]) if len(values) else np.zeros(3)
            box = {"whislo": low, "whishi": high, "fliers": []}
            box |= dict(zip(("q1", "med", "q3"), quartiles, strict=True))
            self.ax_.bxp([box], positions=[place], orientation="horizontal", widths=0.4)
            out = values[(values < low) | (values > high)]
            out = out[np.argsort(-np.abs(out))][:MOST_LINES]
            self.ax_.plot(out, np.full(len(out), place), ".", color="C0", markersize=4)
            column = np.abs(np.nan_to_num(self.influence[name].to_numpy()))
            # They stand side by side, and have less room: above and below by turns.
            for i, number in enumerate(np.argsort(column)[::-1][: (n_labels + 1) // 2]):
                at, up = (self.influence[name].iloc[number], place), i % 2 == 0
                text = {"va": "bottom", "rotation": 45} if up else {"va": "top", "rotation": -45}
                self._label(number, at, (-3, 4 if up else -4), **text)
        cut = 2 / np.sqrt(len(self.influence))
        for x in (-cut, cut):
            self.ax_.axvline(x, color="0.5", linewidth=1, linestyle=":", zorder=0)
        self.ax_.set_yticks(places, [name.removeprefix(BEFORE) for name in names])
        self.ax_.set(xlabel="DFBETAS", ylim=(0.5, len(names) + 0.9))

    def _label(self, number, at, offset, **text):
        self.ax_.annotate(
            short(self.influence.index[number]),
            at,
            offset,
            textcoords="offset points",
            fontsize=7,
            **({"va": "center"} | text),
        )
