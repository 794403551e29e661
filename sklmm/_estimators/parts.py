"""One part of a table's rows, as its fit reads it: a batch of them, or a partition."""

from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd

from sklmm._estimators.input import response_name
from sklmm.design.design import columns_needed
from sklmm.design.growing import GrowingSpec
from sklmm.design.terms import resolve_terms


class Part(NamedTuple):
    """The rows of a part that count: None all where there are none.

    table, y and weights [n_rows], checked, and the name of y; terms and the names of an array's
    columns, as `DesignSpec.learn` takes them; named, whether X was a DataFrame; and how many rows
    were left out.
    """

    n_missing: int
    table: object = None
    y: object = None
    weights: np.ndarray | None = None
    name: str = "y"
    terms: list | None = None
    names: list | None = None
    named: bool = False

    def learnt(self, model, fit_intercept):
        """(GrowingSpec, Design, attributes of `FittedModel`) of a model's first part."""
        growing, design = GrowingSpec.learn(
            self.table, self.terms, model.fixed_effects, fit_intercept, self.names, model.offset
        )
        known = {
            "response_name": "y" if self.name in growing.spec.used() else self.name,
            "from_frame": isinstance(self.table, pd.DataFrame),
            "by_name": model.fixed_effects is not None and self.named,
            "named": self.named,
        }
        return growing, design, known


def read_part(model, head, X, y, sample_weight):
    """The `Part` of a model's X, y and weights; `head` is what the first part has told, or None."""
    X, y = model._take_response(X, y, fitting=True)
    if not (X.shape[0] if hasattr(X, "shape") else len(X)):
        return Part(0)
    named = isinstance(X, pd.DataFrame)
    if head is not None and named != head.known["named"]:
        kinds = ("an array", "a DataFrame")
        raise TypeError(
            f"X: it is {kinds[named]}, and was {kinds[not named]} {head.where}: give tables of "
            "one kind."
        )
    table, name = model._validate_table(X, head is None, fitting=True), response_name(y)
    terms = resolve_terms(model.random_effects, getattr(table, "columns", ()))
    names = getattr(model, "feature_names_in_", None)
    names = None if names is None or isinstance(table, pd.DataFrame) else list(names)
    read = partial(columns_needed, table, terms, model.fixed_effects, model.offset, names)
    table, y, weights, n_missing = model._known_rows(table, y, sample_weight, read, some=False)
    if not table.shape[0]:
        return Part(n_missing)
    y = model._validate_target(table, y)
    return Part(n_missing, table, y, weights, name, terms, names, named)


@contextmanager
def naming(which):
    """Put a part's name before the errors that it gives rise to."""
    try:
        yield
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{which}: {error}") from error
