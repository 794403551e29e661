"""Compiled steps for modules without TensorFlow: their sizes and device, listeners and needs."""

import re
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np

from sklmm._fork import check_not_forked
from sklmm.families.messages import needs_tensorflow

#: Names of the device on which NumPy computes.
_CPU = re.compile(r"(/job:localhost/replica:0/task:0)?(/?device:|/)?CPU(:0)?", re.IGNORECASE)
_listener = ContextVar("listener", default=None)


def bucket(n):
    """The next of a geometric row of sizes, at most an eighth above `n` (and at least 16)."""
    step = max(16, 1 << max(int(n).bit_length() - 4, 0))
    return -(-int(n) // step) * step


def pad(array, length):
    """`array` with zero rows up to `length`."""
    missing = length - len(array)
    return np.pad(array, [(0, missing)] + [(0, 0)] * (array.ndim - 1)) if missing else array


@contextmanager
def telling(listener):
    """Call `listener` with the name of each step that is compiled here; None tells nobody."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def tell(step):
    """Say that a step is compiled."""
    if (listener := _listener.get()) is not None:
        listener(step)


def require_tensorflow(what, instead=""):
    """Errors that name `what` needs TensorFlow and the remedy.

    ImportError where it is not installed, RuntimeError in a process forked after it was used.
    """
    check_not_forked(what)
    try:
        from sklmm.engine.runtime import tfp_graph  # noqa: F401
    except ImportError as error:
        raise needs_tensorflow(what, error, instead) from None


def on_cpu(device):
    """Whether a device's name, which may be None, is that of no other than the processor."""
    return device is None or _CPU.fullmatch(device) is not None


@contextmanager
def placed(device):
    """A context in which TensorFlow computes on a device, by its name; None leaves it that."""
    if device is None:
        yield
        return
    require_tensorflow(f"device={device!r}")
    from sklmm.engine.runtime.tensorflow import check_device, tf

    with tf.device(check_device(device)):
        yield
