"""A fitted model's state as plain arrays, lists and dicts.

pandas' objects are saved as what they hold: files then depend neither on pandas' version nor on its
pickles, and skops, which loads no pandas objects, loads a model.
"""

import warnings

import numpy as np
import pandas as pd

from sklmm._tables import Table

#: Raised when a fitted model's attributes change.
STATE_FORMAT = 5
#: scikit-learn's attributes of an estimator while it is fitted.
UNDER_WAY = ("_callback_fit_ctx", "_skl_callbacks_to_teardown")
#: Key of a dict that stands for another object: which one. A dict that has this key itself, as the
#: name of a term may be, is saved as its items.
KIND = "pandas object"


#: What makes an index of each of these kinds again.
_PARTS = {
    "RangeIndex": ("start", "stop", "step", "name"),
    "IntervalIndex": ("left", "right", "closed", "name"),
    "CategoricalIndex": ("categories", "codes", "ordered", "name"),
}


class PlainState:
    """A mixin: an object is saved as its `packed` state, which is unpacked when it is loaded."""

    def __getstate__(self):
        return packed(vars(self))

    def __setstate__(self, state):
        self.__dict__.update(unpacked(state))


class PlainEstimator:
    """A mixin: an estimator is saved as `packed` state, with the number of its format."""

    def __copy__(self):
        # Without the way through what is saved.
        other = type(self).__new__(type(self))
        other.__dict__.update(self.__dict__)
        return other

    def __getstate__(self):
        state = packed(super().__getstate__()) | {"_state_format": STATE_FORMAT}
        # Of a fit under way, whose callbacks save the estimate that it has reached.
        for name in UNDER_WAY:
            state.pop(name, None)
        return state

    def __setstate__(self, state):
        state = dict(state)
        known = state.pop("_state_format", None) == STATE_FORMAT
        super().__setstate__(unpacked(state))
        if not known:
            warnings.warn(
                f"This {type(self).__name__} was saved by another version of sklmm, whose models "
                "have other attributes: fit it again, or load it with that version.",
                UserWarning,
                stacklevel=2,
            )


def packed(value):
    """A value without pandas objects, in dicts, lists and tuples too."""
    if isinstance(value, pd.DataFrame):
        return _packed_frame(value)
    if isinstance(value, pd.Series):
        index, name = packed(value.index), value.name
        return {KIND: "Series", "values": packed(pd.Index(value)), "index": index, "name": name}
    if isinstance(value, pd.Index):
        return _packed_index(value)
    if type(value) is dict:
        parts = {key: packed(part) for key, part in value.items()}
        return {KIND: "dict", "items": list(parts.items())} if KIND in parts else parts
    if type(value) in (list, tuple):
        return type(value)(packed(part) for part in value)
    return value


def unpacked(value):
    """The value that was `packed`."""
    if type(value) in (list, tuple):
        return type(value)(unpacked(part) for part in value)
    if type(value) is not dict:
        return value
    parts = {key: unpacked(part) for key, part in value.items()}
    return _MAKERS[parts.pop(KIND)](**parts) if KIND in parts else parts


def _packed_frame(frame):
    labels = {"index": packed(frame.index), "columns": packed(frame.columns)}
    values = frame.to_numpy()
    if not all(dtype == np.float64 for dtype in frame.dtypes):
        values = [packed(pd.Index(frame.iloc[:, j])) for j in range(frame.shape[1])]
    kind = "Table" if isinstance(frame, Table) else "DataFrame"
    return {KIND: kind, "values": values, **labels}


def _packed_index(index):
    if isinstance(index, pd.MultiIndex):
        levels, codes = [packed(level) for level in index.levels], [*map(np.asarray, index.codes)]
        return {KIND: "MultiIndex", "levels": levels, "codes": codes, "names": list(index.names)}
    for kind, parts in _PARTS.items():
        if isinstance(index, getattr(pd, kind)):
            return {KIND: kind} | {part: packed(getattr(index, part)) for part in parts}
    dtype = index.dtype
    if isinstance(dtype, pd.DatetimeTZDtype):
        values = index.tz_convert("UTC").tz_localize(None).to_numpy()
    elif isinstance(dtype, np.dtype) and dtype.kind != "O":
        values = index.to_numpy()
    elif pd.api.types.infer_dtype(index) == "string" and not index.hasnans:
        # As an array: of a list skops saves every string by itself.
        values = index.to_numpy().astype(str)
    else:
        values = (
            index.astype(object)
            .where(index.notna() | pd.api.types.is_object_dtype(dtype), None)
            .tolist()
        )
    return {KIND: "Index", "values": values, "dtype": _named(dtype), "name": index.name}


def _named(dtype):
    """The name that makes a dtype again; "object" where none does, as of Arrow's decimals."""
    if isinstance(dtype, pd.StringDtype) and dtype.na_value is pd.NA:
        # Its own name is without the storage.
        return f"string[{dtype.storage}]"
    try:
        pd.api.types.pandas_dtype(str(dtype))
    except (NotImplementedError, TypeError):
        return "object"
    return str(dtype)


def _frame(values, index, columns):
    if isinstance(values, np.ndarray):
        return pd.DataFrame(values, index=index, columns=columns)
    frame = pd.DataFrame({j: column.array for j, column in enumerate(values)}, index=index)
    return frame.set_axis(columns, axis=1)


def _categorical_index(codes, categories, ordered, name):
    values = pd.Categorical.from_codes(codes, categories, ordered=ordered)
    return pd.CategoricalIndex(values, name=name)


def _index(values, dtype, name):
    dtype = pd.api.types.pandas_dtype(dtype)
    if isinstance(dtype, pd.DatetimeTZDtype):
        return pd.DatetimeIndex(values, name=name).tz_localize("UTC").tz_convert(dtype.tz)
    if isinstance(values, np.ndarray) and values.dtype.kind == "U":
        values = values.astype(object)
    return pd.Index(values, dtype=dtype, name=name, tupleize_cols=False)


_MAKERS = {
    "dict": lambda items: dict(items),
    "Table": lambda **parts: Table(_frame(**parts)),
    "DataFrame": _frame,
    "Series": lambda values, **labels: pd.Series(values.array, **labels),
    "Index": _index,
    "RangeIndex": pd.RangeIndex,
    "MultiIndex": pd.MultiIndex,
    "IntervalIndex": pd.IntervalIndex.from_arrays,
    "CategoricalIndex": _categorical_index,
}
