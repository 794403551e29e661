"""What an installation without TensorFlow, or a forked process, says where it is needed."""

from sklmm._fork import check_not_forked
from sklmm.families.base import needs_tensorflow


def require_tensorflow(what, instead=""):
    """Errors that name `what` needs TensorFlow and the remedy.

    ImportError where it is not installed, RuntimeError in a process forked after it was used.
    """
    check_not_forked(what)
    try:
        from sklmm.engine.runtime import tfp_graph  # noqa: F401
    except ImportError as error:
        raise needs_tensorflow(what, error, instead) from None
