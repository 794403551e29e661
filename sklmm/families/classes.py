"""A response of classes: its labels, which are sorted or have an order, and their codes."""

import numpy as np
import pandas as pd

from sklmm.families.messages import listed

#: Variance of the latent variable that a link of binary and ordered responses stands for.
LATENT_VARIANCES = {
    "logit": np.pi**2 / 3,
    "probit": 1.0,
    "cloglog": np.pi**2 / 6,
    "loglog": np.pi**2 / 6,
}


def shown(classes):
    """Classes as an error message shows them."""
    return listed(np.asarray(classes).tolist())


def has_order(y):
    """Whether y is an ordered categorical."""
    dtype = getattr(y, "dtype", None)
    return isinstance(dtype, pd.CategoricalDtype) and dtype.ordered


def labels(family, y, fewest=2):
    """Labels, sorted classes (`fewest` at least), and codes as float64."""
    found = np.asarray(y)
    if found.ndim == 2 and found.shape[1] == 1:
        found = found[:, 0]
    if found.ndim != 1:
        raise family._error(f"y must have one column, not shape {found.shape}: fit one at a time.")
    missing = pd.isna(found)
    family._require(found, ~missing, "a label", "drop the row.")
    if has_order(y):
        codes = y.dtype.categories.get_indexer(found)
        present, codes = np.unique(codes, return_inverse=True)
        classes = np.asarray(y.dtype.categories)[present]
    else:
        try:
            classes, codes = np.unique(found, return_inverse=True)
        except TypeError:
            first = type(found[0])
            good = np.array([isinstance(label, first) for label in found])
            family._require(
                found, good, f"labels of one type ({first.__name__}, as in row 0)", "convert it."
            )
            raise
    if len(classes) < fewest:
        raise family._error(
            f"y has one class only ({shown(classes)}): at least two are needed to fit; check the "
            "rows selected for this fit."
        )
    return found, classes, codes.astype(float)
