"""What a fitted model says of new rows, partition by partition: lazy collections, and scores."""

import pickle
from uuid import uuid4

import cloudpickle
import dask
import dask.array as da
import numpy as np
import pandas as pd
from dask import delayed
from dask.tokenize import tokenize

from sklmm._estimators.input import incomplete, take_rows, unknown_answers
from sklmm.dask.cluster import Fault, running_client
from sklmm.dask.collections import check_collection, is_frame, one_block_of_columns, partitions


class Sent:
    """A model on its way to workers, where it arrives as a local estimator.

    Without the tables of its estimates, which predictions do not read.
    """

    def __init__(self, model):
        self.model = model.to_local()
        self.model._forget_tables()

    def __reduce__(self):
        return _arrived, (type(self.model), vars(self.model))


def _arrived(kind, state):
    model = kind.__new__(kind)
    vars(model).update(state)
    return model


class Predictor:
    """A model and the collection X that it is to say something of."""

    def __init__(self, model, X):
        self.model, self.X = model, X
        # A family may be one that was written in a notebook, which workers do not have.
        data = cloudpickle.dumps(Sent(model))
        # One task, whose answer goes to each worker once.
        self.sent = delayed(pickle.loads)(data, dask_key_name=f"sklmm-model-{tokenize(data)}")

    def __call__(self, method, meta, settings):
        """The lazy collection; `meta` has the type of each of its columns by name."""
        include = self.model._include(settings["include_random"])
        X = self.X
        if is_frame(X):
            self.model._validate_new(X._meta, include)
            return self._of_frame(method, meta, settings)
        self.model._validate_new(np.ones((1, *X.shape[1:]), X.dtype), include)
        return self._of_array(method, meta, settings)

    def _of_frame(self, method, meta, settings):
        empty = pd.DataFrame({name: np.empty(0, dtype) for name, dtype in meta.items()})
        if len(meta) == 1 and method != "predict_proba":
            empty = empty[next(iter(meta))]
        # An index is kept, whatever it is.
        empty.index = self.X._meta.index
        known = {"method": method, "settings": settings, "like": empty}
        return self.X.map_partitions(said, self.sent, **known, meta=empty, align_dataframes=False)

    def _of_array(self, method, meta, settings):
        X, dtype = one_block_of_columns(self.X), np.result_type(*meta.values())
        known = {"method": method, "settings": settings, "like": np.empty((0, len(meta)), dtype)}
        whole = {"dtype": dtype, "chunks": (X.chunks[0], (len(meta),))}
        whole |= {"meta": np.empty((0, 0), dtype)}
        out = da.map_blocks(said, X, self.sent, **known, **whole)
        return out if method == "predict_proba" or len(meta) > 1 else out[:, 0]


def said(part, model, method, settings, like):
    """What a method says of a part's rows, in the kind of collection that `like` is of."""
    if not len(part):
        found = np.empty((0, *np.shape(like)[1:]))
    else:
        found = getattr(model, method)(part, **settings)
        found = np.column_stack(found) if isinstance(found, tuple) else found
    if isinstance(like, np.ndarray):
        return found.reshape(len(part), like.shape[1]).astype(like.dtype, copy=False)
    if isinstance(like, pd.Series):
        return pd.Series(found.astype(like.dtype, copy=False), part.index, name=like.name)
    return pd.DataFrame(found, part.index, like.columns).astype(like.dtypes.to_dict())


def r_squared(model, X, y, sample_weight):
    """R^2 of collections, from sums over each partition's rows."""
    n, mean, about, left = 0.0, 0.0, 0.0, 0.0
    for own_n, own_mean, own_about, own_left in _told(model, X, y, sample_weight, _squares):
        # Chan, Golub and LeVeque's (1983) way, which loses no digits.
        whole = n + own_n
        about += own_about + (own_mean - mean) ** 2 * n * own_n / whole
        mean += (own_mean - mean) * own_n / whole
        n, left = whole, left + own_left
    if about == 0.0:
        # As scikit-learn has it.
        return float(left == 0.0)
    return float(1.0 - left / about)


def accuracy(model, X, y, sample_weight):
    """Share of the weights of rows whose class is the predicted one."""
    parts = _told(model, X, y, sample_weight, _right)
    return float(sum(right for right, _ in parts) / sum(all_ for _, all_ in parts))


def _told(model, X, y, sample_weight, function):
    """What a function says of (y, predictions, weights) of each partition that has rows."""
    local = type(model.to_local()).__name__
    for name, own in (("X", X), ("y", y), ("sample_weight", sample_weight)):
        if own is not None or name != "sample_weight":
            check_collection(name, own, local)
    sent = Predictor(model, X).sent
    task = delayed(_of_part)
    parts = partitions(X, y, sample_weight, uuid4().hex)
    tasks = [task(function, sent, part, i) for i, part in enumerate(parts)]
    # Without a client that was set, where Dask computes collections.
    own = model._client and running_client(model._client)
    found = dask.compute(*tasks, scheduler=own)
    for own in found:
        if isinstance(own, Fault):
            raise own.error()
    if not (found := [own for own in found if own is not None]):
        raise ValueError("Found array with 0 sample(s): no partition has rows that count.")
    return found


def _of_part(function, model, part, number):
    if isinstance(part, Fault):
        return part
    X, y, weights = part
    if len(X) != len(y):
        raise ValueError(f"y: it has {len(y)} rows in partition {number}, and X has {len(X)}.")
    if model.missing == "drop" and len(X):
        table, spec = model._validate_new(X), model._fitted.spec
        keep = ~(unknown_answers(y) | incomplete(table, spec.predictors, spec.weighted()))
        X, y = take_rows(X, keep), take_rows(y, keep)
        weights = None if weights is None else take_rows(weights, keep)
    if not len(X):
        return None
    y, found = np.asarray(y), model.predict(X)
    if y.ndim == 2 and y.shape[1] > 1:
        y, weights = model._scored(y, weights)
    weights = np.ones(len(found)) if weights is None else np.asarray(weights, float)
    return function(y.reshape(len(found)), found, weights) if weights.any() else None


def _squares(y, found, weights):
    n, mean = weights.sum(), np.average(y, weights=weights)
    return n, mean, weights @ (y - mean) ** 2, weights @ (y - found) ** 2


def _right(y, found, weights):
    return weights @ (y == found), weights.sum()
