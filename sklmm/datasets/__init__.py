"""Data sets that ship with sklmm, and a simulator of crossed designs of any size.

The loaders follow :mod:`sklearn.datasets`: ``load_*(*, return_X_y=False, as_frame=False)``. They
read files inside the package, so they work offline. Nothing here imports TensorFlow.
"""

from sklmm.datasets._loaders import (
    load_cbpp,
    load_dyestuff,
    load_insteval,
    load_pastes,
    load_sleepstudy,
    load_toenail,
)
from sklmm.datasets._simulate import make_crossed

__all__ = [
    "load_cbpp",
    "load_dyestuff",
    "load_insteval",
    "load_pastes",
    "load_sleepstudy",
    "load_toenail",
    "make_crossed",
]
