"""`ModelGraphDisplay`: which random variable depends on which."""

from sklearn.utils.validation import check_is_fitted

from sklmm.inspection._display import Display


class ModelGraphDisplay(Display):
    """The model's variables as boxes, each below those that it depends on.

    Parameters
    ----------
    graph : tuple of (str, tuple of str)
        Each variable with those it depends on, as a model's `model_graph` gives them.

    Attributes
    ----------
    figure_, ax_ : matplotlib Figure, Axes
    boxes_ : dict of Annotation
        By variable.

    Examples
    --------
    >>> from sklmm.inspection import ModelGraphDisplay
    >>> graph = (("students", ()), ("instructors", ()), ("y", ("instructors", "students")))
    >>> sorted(ModelGraphDisplay(graph=graph).plot().boxes_)
    ['instructors', 'students', 'y']
    """

    graph: tuple

    @classmethod
    def from_estimator(cls, estimator, *, ax=None):
        """Draw the graph of a fitted estimator.

        Parameters
        ----------
        estimator : MixedEffectsRegressor or MixedEffectsClassifier
        ax : Axes, optional

        Returns
        -------
        ModelGraphDisplay
        """
        check_is_fitted(estimator)
        return cls(graph=estimator.model_graph()).plot(ax=ax)

    def _draw(self):
        depth = {}
        for name, parents in self.graph:
            depth[name] = 1 + max((depth[p] for p in parents), default=-1)
        rows = [[n for n in depth if depth[n] == d] for d in range(max(depth.values()) + 1)]
        place = {
            name: ((i + 0.5) / len(row), -d)
            for d, row in enumerate(rows)
            for i, name in enumerate(row)
        }
        self.boxes_ = {
            name: self.ax_.annotate(
                name, at, ha="center", va="center", bbox={"boxstyle": "round,pad=0.5", "fc": "0.95"}
            )
            for name, at in place.items()
        }
        for name, parents in self.graph:
            for parent in parents:
                self.ax_.annotate(
                    "",
                    place[name],
                    place[parent],
                    arrowprops={"arrowstyle": "->", "shrinkA": 16, "shrinkB": 16, "color": "0.4"},
                    zorder=0,
                )
        self.ax_.set(xlim=(0, 1), ylim=(0.5 - len(rows), 0.5))
        self.ax_.set_axis_off()
