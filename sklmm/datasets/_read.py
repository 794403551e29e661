"""From a compressed csv file inside the package to the Bunch that a loader returns."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from inspect import getdoc
from types import MappingProxyType

import numpy as np
import pandas as pd
from sklearn.utils import Bunch

_CALL_SECTIONS = ("Parameters", "Returns", "Raises", "Examples")


def load_csv(
    loader: Callable,
    filename: str,
    columns: Sequence[str],
    *,
    return_X_y: bool,
    as_frame: bool,
    rename: Mapping[str, str] = MappingProxyType({}),
    target_dtype: type | None = None,
) -> Bunch | tuple:
    """Read one file; ``columns`` are the features and then the target, after ``rename``."""
    path = resources.files(__package__) / "data" / filename
    with path.open("rb") as stream:
        frame = pd.read_csv(stream, compression="gzip").rename(columns=rename)[list(columns)]
    *feature_names, target = columns
    if target_dtype is not None:
        frame[target] = frame[target].astype(target_dtype)

    codes, categories = _encode(frame)
    if as_frame:
        data, y = frame[feature_names], frame[target]
    else:
        data, y = codes[feature_names].to_numpy(np.float64), codes[target].to_numpy()
    if return_X_y:
        return data, y
    return Bunch(
        data=data,
        target=y,
        frame=frame if as_frame else None,
        feature_names=feature_names,
        target_names=list(categories.get(target, [target])),
        categories=categories,
        DESCR=_description(loader),
        filename=str(path),
    )


def _encode(frame: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """Replace strings by codes in sorted order; also return the labels of each such column."""
    codes, categories = frame.copy(), {}
    for name in frame.columns:
        if not pd.api.types.is_numeric_dtype(frame[name]):
            codes[name], labels = pd.factorize(frame[name], sort=True)
            categories[name] = np.asarray(labels, dtype=object)
    return codes, categories


def _description(loader: Callable) -> str:
    """Cut a loader's docstring down to what it says about the data (empty under ``python -OO``)."""
    sections = re.split(r"\n\n(?=[^\n]+\n-{3,}\n)", getdoc(loader) or "")
    return "\n\n".join(s for s in sections if not s.startswith(_CALL_SECTIONS))
