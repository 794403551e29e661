"""`ConvergenceDisplay`: the fit, iteration by iteration."""

import pandas as pd
from sklearn.utils.validation import check_is_fitted

from sklmm.inspection._display import Display


class ConvergenceDisplay(Display):
    """Loss, parameters and acceptance rate by iteration.

    Parameters
    ----------
    history : DataFrame
        A model's `history_`.
    estimate, std_error : Series
        Final values and standard errors of the parameters that are drawn.

    Attributes
    ----------
    figure_ : matplotlib Figure
    axes_ : ndarray of Axes
        Of the loss, the parameters, and the acceptance rate where the E-step has one.
    lines_ : dict of Line2D
        By column of `history`.

    Examples
    --------
    >>> from sklmm import MixedEffectsRegressor
    >>> from sklmm.datasets import load_sleepstudy
    >>> from sklmm.inspection import ConvergenceDisplay
    >>> model = MixedEffectsRegressor(["Subject"])
    >>> display = ConvergenceDisplay.from_estimator(
    ...     model.fit(*load_sleepstudy(return_X_y=True, as_frame=True))
    ... )
    >>> list(display.lines_)
    ['loss', 'Intercept', 'Days', 'sd(Subject, Intercept)', 'sigma']
    """

    history: pd.DataFrame
    estimate: pd.Series
    std_error: pd.Series

    @classmethod
    def from_estimator(cls, estimator, *, parameters=None, ax=None):
        """Draw a fitted estimator's iterations.

        Parameters
        ----------
        estimator : MixedEffectsRegressor or MixedEffectsClassifier
        parameters : list of str, optional
            Names among the columns of `history_`; None draws all that have a standard error.
        ax : array of Axes, optional

        Returns
        -------
        ConvergenceDisplay
        """
        check_is_fitted(estimator)
        estimate, std = estimator._fitted.estimates(estimator.result_)
        known = [n for n in estimate.index if n in estimator.history_ and std[n] > 0]
        for name in parameters or ():
            if name not in known:
                raise ValueError(
                    f"parameters: {name!r} is not one of {', '.join(map(repr, known))}."
                )
        names = known if parameters is None else list(parameters)
        return cls(history=estimator.history_, estimate=estimate[names], std_error=std[names]).plot(
            ax=ax
        )

    def plot(self, *, ax=None):
        """Draw.

        Parameters
        ----------
        ax : array of Axes, optional
            Two, or three with an acceptance rate; None makes a figure.

        Returns
        -------
        ConvergenceDisplay
        """
        history = self.history
        rate = history["acceptance_rate"]
        drawn = rate.notna().any()
        self.figure_, self.axes_ = self._new_axes(2 + drawn, ax)
        loss, moves = self.axes_[:2]
        (line,) = loss.plot(history.index, history["loss"], color="C0")
        self.lines_ = {"loss": line}
        loss.set(xlabel="iteration", ylabel="-log p(y, b | θ)", title="Loss")
        for name in self.estimate.index:
            away = (history[name] - self.estimate[name]) / self.std_error[name]
            (self.lines_[name],) = moves.plot(history.index, away, label=name, linewidth=1)
        moves.axhspan(-1, 1, color="0.93", zorder=0)
        moves.set_yscale("symlog", linthresh=1)
        moves.set(
            xlabel="iteration", ylabel="standard errors from the estimate", title="Parameters"
        )
        if 0 < len(self.estimate) <= 10:
            moves.legend(frameon=False, fontsize="small")
        if drawn:
            (line,) = self.axes_[2].plot(history.index, rate, color="C0")
            self.lines_["acceptance_rate"] = line
            self.axes_[2].set(
                xlabel="iteration", ylabel="acceptance rate", ylim=(0, 1), title="Acceptance"
            )
        for axes in self.axes_:
            axes.set_xlim(1, max(len(history), 2))
            axes.xaxis.get_major_locator().set_params(integer=True)
        return self
