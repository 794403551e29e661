"""The response: y and its weights in the numbers that the engine works on, checked by a family."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from sklmm.families.modelled import expanded


@dataclass(frozen=True, eq=False)
class Response:
    """y in the numbers that the engine works on.

    Parameters
    ----------
    family : Family
    y : ndarray of float64 [n]
        Codes 0..K-1 for a family of classes, proportions for a binomial one.
    weights : ndarray of float64 [n]
        Including the trials of a binomial response.
    classes : ndarray [K] or None
        Sorted labels.
    keep : ndarray of bool [n] or None
        False for rows that say nothing (binomial without trials); None keeps all.
    log_constant : float
        What the engine's log-likelihood lacks: the binomial coefficients, the precisions.
    sigma_unit : float
        What the engine's residual SD is to be multiplied by: the root of the precisions' mean.
    n_obs : float or None
        Number of observations where it is not the sum of the weights.
    counted : bool
        Whether log_constant is known: of proportions it is where trials and successes are whole.
    data : ndarray of float64 [n, k] or None
        What rows have besides y, the family's `row_data`.
    models : tuple of `ParameterModel`
        Parameters that are linear in columns of the design.
    masses : float
        Weights of the rows whose log f is that of a probability in spite of a continuous y: another
        unit of y does not change it.
    """

    family: object
    y: np.ndarray
    weights: np.ndarray
    classes: np.ndarray | None = None
    keep: np.ndarray | None = None
    log_constant: float = 0.0
    sigma_unit: float = 1.0
    n_obs: float | None = None
    counted: bool = True
    data: np.ndarray | None = None
    models: tuple = ()
    masses: float = 0.0

    def with_data(self, params, n_axes=2):
        """Parameters of the family with the row data beside them, arrays [n, 1, ...] of axes."""
        if self.data is None:
            return params
        shape = -1, *[1] * (n_axes - 1)
        named = zip(self.family.row_data, self.data.T, strict=True)
        return {**params, **{name: column.reshape(shape) for name, column in named}}

    @property
    def n_classes(self):
        """Number of classes, or None."""
        return None if self.classes is None else len(self.classes)

    @property
    def n_predictors(self):
        """Linear predictors a row."""
        return self.family.n_predictors(self.n_classes)

    @property
    def parameters(self):
        """Constraint, or pinned value, of each of the family's parameters, or its coefficients."""
        own = self.family.parameters(self.n_classes)
        return expanded(own, self.models) if self.models else own


def row_weights(weights, n):
    """Weights as float64 [n], not to be written to; 1 where none are given, in no memory."""
    return np.broadcast_to(1.0, n) if weights is None else np.asarray(weights, float)


def numeric(family, y, weights):
    """y [n] (or a column) and its weights as float64."""
    raw = np.asarray(y)
    if raw.ndim == 2 and raw.shape[1] == 1:
        raw = raw[:, 0]
    if raw.ndim != 1:
        raise family._error(f"y must have one column, not shape {raw.shape}: fit one at a time.")
    values = floats(family, raw)
    family._require(raw, np.isfinite(values), "finite", "drop or impute the row.")
    return values, row_weights(weights, len(values))


def floats(family, raw):
    """Values of y as float64, itself if it is so; ValueError names the first that is no number."""
    try:
        return raw.astype(float, copy=False)
    except (TypeError, ValueError):
        for row in np.ndindex(raw.shape):
            try:
                float(raw[row])
            except (TypeError, ValueError):
                raise family._error(
                    f"y must be numeric, not {raw[row]!r} (row {row[0]}): convert it, or use "
                    "'bernoulli', 'ordinal' or 'categorical' for labels."
                ) from None
        raise


def listed(names):
    """Names as an error message shows them."""
    return ", ".join(map(repr, names))


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
