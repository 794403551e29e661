"""`RandomEffectsDisplay`: the effects of a term's levels."""

import numpy as np
import pandas as pd
from scipy.stats import norm
from sklearn.utils.validation import check_is_fitted

from sklmm.inspection._display import Display, histogram, named, normal_quantiles, short

KINDS = ("caterpillar", "histogram", "qq")
#: Levels up to which a new figure is made high enough for the names of all, and the height in
#: points that a name takes.
MOST_NAMED = 40
LINE = 9.0


class RandomEffectsDisplay(Display):
    """Posterior means of a term's effects, and their uncertainty.

    Parameters
    ----------
    effects, std : Series
        Posterior means and SDs by level.
    sd : float
        The term's own SD.
    term, coefficient : str

    Attributes
    ----------
    figure_, ax_ : matplotlib Figure, Axes

    Examples
    --------
    >>> from sklmm import MixedEffectsRegressor
    >>> from sklmm.datasets import load_sleepstudy
    >>> from sklmm.inspection import RandomEffectsDisplay
    >>> X, y = load_sleepstudy(return_X_y=True, as_frame=True)
    >>> model = MixedEffectsRegressor(["(1 + Days | Subject)"]).fit(X, y)
    >>> display = RandomEffectsDisplay.from_estimator(model, coefficient="Days")
    >>> display.ax_.get_xlabel()
    'effect: Days'
    """

    effects: pd.Series
    std: pd.Series
    sd: float
    term: str
    coefficient: str

    @classmethod
    def from_estimator(
        cls, estimator, *, term=None, coefficient=None, kind="caterpillar", level=0.95, ax=None
    ):
        """Draw the effects of a fitted estimator's term.

        Parameters
        ----------
        estimator : MixedEffectsRegressor or MixedEffectsClassifier
        term, coefficient : str, optional
            The first ones by default.
        kind : {"caterpillar", "histogram", "qq"}, default="caterpillar"
        level : float, default=0.95
            Of a caterpillar's intervals.
        ax : Axes, optional

        Returns
        -------
        RandomEffectsDisplay
        """
        check_is_fitted(estimator)
        if not estimator.random_effects_:
            raise ValueError("random_effects: the model has no terms to draw.")
        term = named(term, estimator.random_effects_, "term")
        table = estimator.random_effects_[term]
        coefficient = named(coefficient, table.columns, "coefficient")
        display = cls(
            effects=table[coefficient],
            std=estimator.random_effects_std_[term][coefficient],
            sd=float(np.sqrt(estimator.cov_re_[term].loc[coefficient, coefficient])),
            term=term,
            coefficient=coefficient,
        )
        return display.plot(kind=kind, level=level, ax=ax)

    def plot(self, *, kind="caterpillar", level=0.95, ax=None):
        """Draw.

        Parameters
        ----------
        kind : {"caterpillar", "histogram", "qq"}, default="caterpillar"
            The levels in order with intervals; their density beside the model's normal one; or
            their quantiles beside a normal distribution's.
        level : float, default=0.95
        ax : Axes, optional
            None makes a figure, whose height has room for the names of up to 40 levels. Levels are
            named where there is room for all of them.

        Returns
        -------
        RandomEffectsDisplay
        """
        kind = named(kind, KINDS, "kind")
        n_levels = len(self.effects)
        named_levels = n_levels if kind == "caterpillar" and n_levels <= MOST_NAMED else 0
        # Axes are about three quarters of their figure.
        height = max(3.6, (named_levels + 1) * LINE / 72 / 0.75)
        self.figure_, (self.ax_,) = self._new_axes(1, ax, height)
        name = f"effect: {self.coefficient}"
        if kind == "histogram":
            histogram(self.effects.to_numpy(), self.sd, self.ax_, color="C0", alpha=0.6)
            self.ax_.set(xlabel=name)
        elif kind == "qq":
            normal_quantiles(self.effects.to_numpy(), self.ax_, color="C0")
            self.ax_.set(ylabel=name)
        else:
            self._caterpillar(level)
            self.ax_.set(xlabel=name)
        self.ax_.set(title=self.term)
        return self

    def _caterpillar(self, level):
        order = self.effects.argsort().to_numpy()
        effects, half = self.effects.iloc[order], norm.ppf(0.5 + level / 2) * self.std.iloc[order]
        places = np.arange(len(order))
        self.ax_.hlines(places, effects - half, effects + half, color="C0", linewidth=1, alpha=0.6)
        self.ax_.plot(effects, places, ".", color="C0", markersize=4)
        self.ax_.axvline(0.0, color="0.5", linewidth=1, zorder=0)
        self.ax_.set_ylim(-1, len(order))
        room = 72 * self.figure_.get_figheight() * self.ax_.get_position().height
        if (len(order) + 1) * LINE <= room:
            self.ax_.set_yticks(places, [short(label) for label in effects.index], fontsize=7)
        else:
            self.ax_.set(ylabel="levels in order")
