"""What looks on while a model is fitted: scikit-learn's callbacks, and lines of progress."""

import numpy as np


class Watch:
    """What the engine calls at each iteration of a fit: callbacks are told, and lines printed.

    `task` is the fit's CallbackContext, and `data` X, y and metadata, as the callbacks' hooks are
    given them. `fitted` leads from an EMResult to the attributes of the estimator fitted so.
    """

    def __init__(self, estimator, task, data, fitted):
        self.estimator = estimator
        self.task = task
        self.data = data
        self.fitted = fitted
        self.seconds = []

    def __call__(self):
        """Begin an iteration; the function returned is for its end, and its True stops the fit."""
        task = self.task.subcontext(task_name="EM iteration")
        task.call_on_fit_task_begin(estimator=self.estimator, **self.data)

        def end(iteration, record, left, result):
            self._print(iteration, record, left)
            return task.call_on_fit_task_end(
                estimator=self.estimator,
                **self.data,
                reconstruction_attributes=lambda: self.fitted(result()),
            )

        return end

    def compiling(self, step):
        """Say that a step is compiled, which may take longer than the iterations after it."""
        if self.estimator.verbose:
            print(f"compiling {step.replace('_', ' ')}, once for tables of about this size")

    def _print(self, iteration, record, left):
        self.seconds.append(record["seconds"])
        verbose = int(self.estimator.verbose)
        if not verbose or (iteration % max(10 // verbose, 1) and iteration > 1 and left != 0):
            return
        parts = [f"iteration {iteration:4d}", f"loss {record['loss']:.6g}"]
        if not np.isnan(record["acceptance_rate"]):
            parts.append(f"acceptance {record['acceptance_rate']:.2f}")
        if np.isfinite(record["step"]):
            parts.append(f"step {record['step']:.2g} SE")
        parts.append(f"{sum(self.seconds):.1f} s")
        if np.isfinite(left):
            left = min(np.ceil(left), self.estimator.max_iter - iteration)
            # The median, for the first iterations compile.
            parts.append(f"about {left * np.median(self.seconds[-10:]):.1f} s left")
        print("  ".join(parts))
