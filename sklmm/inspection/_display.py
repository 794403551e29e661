"""The displays' base and what they share; matplotlib is imported when one is drawn."""

from dataclasses import dataclass

import numpy as np
from scipy.stats import norm
from sklearn.utils._optional_dependencies import check_matplotlib_support

#: Letters of a level's name that are shown.
LONGEST_NAME = 30


class Display:
    """Base class of the displays: their fields are what is drawn, and `plot` draws it.

    A subclass's fields are the keyword arguments that it is made of.
    """

    def __init_subclass__(cls):
        dataclass(kw_only=True, eq=False, repr=False)(cls)

    def plot(self, *, ax=None):
        """Draw.

        Parameters
        ----------
        ax : Axes, optional
            None makes a figure.

        Returns
        -------
        Display
            The display itself.
        """
        self.figure_, (self.ax_,) = self._new_axes(1, ax)
        self._draw()
        return self

    def _new_axes(self, n, ax, height=3.6):
        """(figure, array of n axes): new ones side by side, or the `ax` given, one or several."""
        check_matplotlib_support(f"{type(self).__name__}.plot")
        import matplotlib.pyplot as plt

        if ax is None:
            figure, axes = plt.subplots(
                1, n, figsize=(4.6 * n, height), layout="constrained", squeeze=False
            )
            return figure, axes[0]
        axes = np.ravel(ax)
        if len(axes) != n:
            raise ValueError(f"ax: {type(self).__name__} draws on {n} axes, and {len(axes)} came.")
        return axes[0].figure, axes


def normal_quantiles(values, ax, **line):
    """Sorted values against those of a normal distribution, and the line through the quartiles."""
    values = np.sort(values)
    theory = norm.ppf((np.arange(len(values)) + 0.5) / len(values))
    ax.plot(theory, values, ".", **line)
    low, high = np.quantile(values, [0.25, 0.75])
    slope = (high - low) / (norm.ppf(0.75) - norm.ppf(0.25))
    ax.axline((0, (low + high) / 2), slope=slope, color="0.5", linewidth=1, zorder=0)
    ax.set(xlabel="normal quantile")


def histogram(values, sd, ax, **bars):
    """Density of the values, and the normal one of mean 0 and SD `sd`."""
    ax.hist(values, bins="auto" if len(values) < 2000 else 60, density=True, **bars)
    if sd > 0:
        wide = max(4 * sd, np.abs(values).max(initial=0.0))
        x = np.linspace(-wide, wide, 301)
        ax.plot(x, norm.pdf(x, scale=sd), color="black", linewidth=1, label=f"N(0, {sd:.3g}²)")
        ax.legend(frameon=False)
    ax.set(ylabel="density")


def named(choice, values, what):
    """`choice` if it is among `values`, the first of them if it is None."""
    values = list(values)
    if choice is None:
        return values[0]
    if choice not in values:
        raise ValueError(
            f"{what}={choice!r} is not one of this model, which has "
            f"{', '.join(map(repr, values)) or 'none'}."
        )
    return choice


def short(label):
    """A level's name, cut to where it has room."""
    label = ":".join(map(str, label)) if isinstance(label, tuple) else str(label)
    half = LONGEST_NAME // 2
    return label if len(label) <= LONGEST_NAME else f"{label[:half]}…{label[1 - half :]}"
