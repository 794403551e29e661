"""Covariances of the coefficients of a level: see `base` for what they are, and how to add one."""

from sklmm.covariances.base import Covariance
from sklmm.covariances.diagonal import Diagonal
from sklmm.covariances.pinned import Pinned
from sklmm.covariances.unstructured import Unstructured

__all__ = ["NAMED", "Covariance", "Diagonal", "Pinned", "Unstructured"]

#: Those that formulas have names for.
NAMED = {kind.name: kind for kind in (Unstructured, Diagonal)}
