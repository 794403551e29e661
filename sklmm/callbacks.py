"""Callbacks of scikit-learn's kind, for `set_callbacks`."""

import signal
import threading


class StopOnInterrupt:
    """Ctrl-C ends a fit after its iteration, with the estimate reached.

    Without it an interrupted fit raises KeyboardInterrupt and leaves the estimator as it was. With
    it the estimator is fitted, ``converged_`` is False and ``result_.status`` is
    ``Status.STOPPED``; ``warm_start=True`` goes on from there. A second Ctrl-C interrupts at once.

    Python gives Ctrl-C to the main thread: fits in others are not stopped.

    Attributes
    ----------
    interrupted : bool
        Whether the last fit was.

    Examples
    --------
    >>> from sklmm import MixedEffectsRegressor
    >>> from sklmm.callbacks import StopOnInterrupt
    >>> from sklmm.datasets import load_sleepstudy
    >>> X, y = load_sleepstudy(return_X_y=True, as_frame=True)
    >>> stop = StopOnInterrupt()
    >>> model = MixedEffectsRegressor(["Subject"]).set_callbacks(stop).fit(X, y)
    >>> stop.interrupted
    False
    """

    def __init__(self):
        self.interrupted = False
        self._before = None

    def __getstate__(self):
        # A notebook's handler is nothing to save.
        return {"interrupted": self.interrupted, "_before": None}

    def setup(self, estimator, context):
        """Take Ctrl-C over as the fit begins."""
        self.interrupted = False
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._note)

    def teardown(self, estimator, context):
        """Give it back, however the fit ends."""
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
            self._before = None

    def on_fit_task_begin(self, estimator, context):
        """Nothing."""

    def on_fit_task_end(self, estimator, context):
        """Whether to stop."""
        return self.interrupted

    def _note(self, number, frame):
        if self.interrupted:
            signal.default_int_handler(number, frame)
        self.interrupted = True
