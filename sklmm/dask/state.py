"""What of an estimator goes to the workers, and what a fit brings back from them."""

from copy import copy, deepcopy
from dataclasses import replace
from numbers import Integral
from typing import NamedTuple

from sklearn.utils import check_random_state
from sklearn.utils.validation import validate_data

from sklmm._estimators.base import seed_of
from sklmm.dask.collections import is_frame

#: Attributes of an estimator that say which columns a table had.
COLUMNS = ("feature_names_in_", "n_features_in_")


class Solved(NamedTuple):
    """The fitted state of a model, and the warnings of its fit."""

    columns: dict
    fitted: object
    result: object
    warnings: list


def unfitted(model):
    """The local estimator of a Dask estimator's parameters.

    A generator of random numbers goes with it as it is, and has gone on here as after a fit.
    """
    parameters, state = model.get_params(deep=False), model.random_state
    if not isinstance(state, Integral):
        parameters["random_state"] = deepcopy(check_random_state(state))
        seed_of(state)
    return model._local_class(**parameters)


def here(model, begun):
    """A Dask estimator that is fitted in this process, with what a worker's, `begun`, knows."""
    own = copy(model)
    own.random_state = begun.random_state
    vars(own).update(columns_known(begun))
    return own


def columns_known(model):
    """The attributes that say which columns a table had."""
    return {name: vars(model)[name] for name in COLUMNS if name in vars(model)}


def set_fitted(model, X, solved):
    """Make a Dask estimator one fitted to the collection X."""
    fitted = solved.fitted
    for name in COLUMNS:
        vars(model).pop(name, None)
    vars(model).update(solved.columns)
    if is_frame(X):
        # Partitions had the columns that the model reads; a table has more.
        table, _ = model._without_response(X._meta)
        validate_data(model, table, reset=True, skip_check_array=True)
        fitted = replace(fitted, spec=replace(fitted.spec, columns=tuple(table.columns)))
    model._set_fitted(fitted, solved.result)
