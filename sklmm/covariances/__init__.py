"""Covariances of the coefficients of a level: see `base` for what they are, and how to add one."""

from sklmm.covariances.ar1 import AR1
from sklmm.covariances.base import Covariance
from sklmm.covariances.compound_symmetry import CompoundSymmetry
from sklmm.covariances.diagonal import Diagonal
from sklmm.covariances.pinned import Pinned
from sklmm.covariances.toeplitz import Toeplitz
from sklmm.covariances.unstructured import Unstructured

__all__ = [
    "AR1",
    "NAMED",
    "CompoundSymmetry",
    "Covariance",
    "Diagonal",
    "Pinned",
    "Toeplitz",
    "Unstructured",
]

#: Those that formulas have names for.
NAMED = {kind.name: kind for kind in (Unstructured, Diagonal, CompoundSymmetry, AR1, Toeplitz)}
