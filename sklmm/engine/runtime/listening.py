"""Who is told, while a model is fitted, that a step is compiled."""

from contextlib import contextmanager
from contextvars import ContextVar

_listener = ContextVar("listener", default=None)


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
