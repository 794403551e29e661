"""Data sets that ship with sklmm, and a simulator of crossed designs of any size.

The loaders follow :mod:`sklearn.datasets`: ``load_*(*, return_X_y=False, as_frame=False)``. They
read files inside the package, so they work offline. The conventions they share:

- Columns that R stores as factors labelled by numbers (``Subject``, ``students``, ...) are integers
  that keep R's labels; columns labelled by words are strings.
- With ``as_frame=False``, ``data`` is a ``float64`` array. A column of strings becomes the codes
  0, 1, ... of its labels in sorted order, the order of ``classes_`` in a classifier, so that a
  target gives the same fit in either form. ``categories[name][code]`` is the label of a code.
- Every call reads the file again, so callers may change what they get.

The files were written by ``write.csv`` from the R packages that each docstring names.
"""

from sklmm.datasets._loaders import (
    load_cbpp,
    load_dyestuff,
    load_epil2,
    load_insteval,
    load_pastes,
    load_sleepstudy,
    load_toenail,
    load_wine,
)
from sklmm.datasets._simulate import make_crossed

__all__ = [
    "load_cbpp",
    "load_dyestuff",
    "load_epil2",
    "load_insteval",
    "load_pastes",
    "load_sleepstudy",
    "load_toenail",
    "load_wine",
    "make_crossed",
]
