"""What an installation without TensorFlow says where it is needed."""

from sklmm.families.base import needs_tensorflow


def require_tensorflow(what, instead=""):
    """ImportError that names `what` needs TensorFlow and the remedy, where it is not installed."""
    try:
        from sklmm.engine import model  # noqa: F401
    except ImportError as error:
        raise needs_tensorflow(what, error, instead) from None
