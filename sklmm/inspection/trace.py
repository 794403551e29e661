"""`TraceDisplay`: a chain's effects by iteration."""

import numpy as np
from sklearn.utils.validation import check_is_fitted

from sklmm.inspection._display import Display, named


class TraceDisplay(Display):
    """One chain's draws of some levels' effects, by iteration.

    The parameters move in the first iterations, and the draws with them.

    Parameters
    ----------
    iterations : ndarray of shape (n_draws,)
    draws : ndarray of shape (n_draws, n_levels)
    levels : list
    term, coefficient : str

    Attributes
    ----------
    figure_, ax_ : matplotlib Figure, Axes
    lines_ : list of Line2D
        One a level.

    Examples
    --------
    >>> from sklmm import MixedEffectsRegressor
    >>> from sklmm.datasets import load_sleepstudy
    >>> from sklmm.inspection import TraceDisplay
    >>> model = MixedEffectsRegressor(["Subject"], e_step="hmc", random_state=0)
    >>> model = model.fit(*load_sleepstudy(return_X_y=True, as_frame=True))
    >>> display = TraceDisplay.from_estimator(model, levels=[308, 309])
    >>> [line.get_label() for line in display.lines_]
    ['308', '309']
    """

    iterations: np.ndarray
    draws: np.ndarray
    levels: list
    term: str
    coefficient: str

    @classmethod
    def from_estimator(cls, estimator, *, term=None, coefficient=None, levels=5, ax=None):
        """Draw the chain of a model fitted by "hmc" or "nuts".

        Parameters
        ----------
        estimator : MixedEffectsRegressor or MixedEffectsClassifier
        term, coefficient : str, optional
            The first ones by default.
        levels : int or list, default=5
            Labels of levels, or how many of the first to draw.
        ax : Axes, optional

        Returns
        -------
        TraceDisplay

        Raises
        ------
        ValueError
            For a model that has no chain, or without that term, coefficient or level.
        """
        check_is_fitted(estimator)
        trace = estimator.result_.trace
        if trace is None:
            raise ValueError(
                f"e_step={estimator.e_step!r} drew no chain, or an update followed: fit by 'hmc' "
                "or 'nuts'."
            )
        term = named(term, estimator.random_effects_, "term")
        table = estimator.random_effects_[term]
        coefficient = named(coefficient, table.columns, "coefficient")
        wanted = list(table.index[:levels]) if isinstance(levels, int) else list(levels)
        rows = table.index.get_indexer(wanted)
        if (rows < 0).any():
            raise ValueError(f"levels: {wanted[int(rows.argmin())]!r} is not one of {term!r}.")
        iterations, blocks = trace
        column = list(table.columns).index(coefficient)
        mine = next(k for own, k, _ in estimator._fitted.term_blocks() if own.name == term)
        draws = np.concatenate([blocks[k][:, rows] for k in mine], axis=2)[:, :, column]
        return cls(
            iterations=iterations, draws=draws, levels=wanted, term=term, coefficient=coefficient
        ).plot(ax=ax)

    def _draw(self):
        self.lines_ = self.ax_.plot(self.iterations, self.draws, linewidth=1)
        for line, level in zip(self.lines_, self.levels, strict=True):
            line.set_label(str(level))
        if len(self.levels) <= 10:
            self.ax_.legend(frameon=False, fontsize="small", title=self.term)
        self.ax_.set(xlabel="iteration", ylabel=f"effect: {self.coefficient}", title=self.term)
