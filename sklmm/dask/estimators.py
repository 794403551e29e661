"""`DaskMixedEffectsRegressor` and `DaskMixedEffectsClassifier`: the estimators of Dask collections.

They are the local estimators, parameters and fitted state and all; what differs is where rows are.
"""

import warnings
from copy import copy
from functools import partial

import dask.dataframe as dd
import numpy as np
from sklearn.base import _fit_context
from sklearn.utils.validation import check_is_fitted

from sklmm._estimators.input import restoring
from sklmm._estimators.priors import check_whole
from sklmm._estimators.progress import Watch
from sklmm.classifier import MixedEffectsClassifier
from sklmm.dask.cluster import last_client, running_client, session
from sklmm.dask.collections import check_collection
from sklmm.dask.predictions import Predictor, accuracy, r_squared
from sklmm.dask.sharded import fit_rows
from sklmm.dask.sums import fit_sums, has_sums
from sklmm.regressor import MixedEffectsRegressor


class LocalOnly:
    """A method of the local estimators that those of collections do not have."""

    def __set_name__(self, owner, name):
        self.name = name

    def __get__(self, model, owner=None):
        kind = (owner or type(model)).__name__
        raise AttributeError(
            f"{kind} has no {self.name}, which reads rows of one machine: to_local() gives the "
            f"model that has, {kind.removeprefix('Dask')}."
        )


class OnDask:
    """A mixin before a local estimator: it is fitted to Dask collections, and predicts lazily."""

    fit_batches = LocalOnly()
    fit_parquet = LocalOnly()
    partial_fit = LocalOnly()
    update = LocalOnly()
    sample_y = LocalOnly()
    augment = LocalOnly()
    #: The client that was set.
    _client = None

    @property
    def client(self):
        """The `distributed.Client` that fit uses: the one set here, or the one started last.

        None where there is none. No parameter: copies and saved models do not have it.
        """
        return last_client() if self._client is None else self._client

    @client.setter
    def client(self, client):
        self._client = client

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None, sample_weight=None):
        """Fit the model to collections whose partitions stay on their workers.

        Parameters
        ----------
        X : dask DataFrame or array of shape (n_rows, n_columns)
            As the local estimator takes it; categories and divisions may be unknown.
        y : dask Series or array of shape (n_rows,), optional
            Response, in partitions as those of X; None where `fixed_effects` is a formula that
            names it, a column of X.
        sample_weight : dask Series or array of shape (n_rows,), optional
            Repetitions of each row. X, y and weights may be columns of one table, which is then
            read once.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            As the local estimator's, naming the partition by its number, counted from 0; the
            estimator is left as it was.
        RuntimeError
            Without a client, and where workers die again and again.
        """
        task = self._init_callback_context(max_subtasks=self.max_iter)
        data = {"X": None, "y": None, "metadata": None}
        check_whole(self, "models of Dask collections")
        local = self._local_class.__name__
        for name, own in (("X", X), ("y", y), ("sample_weight", sample_weight)):
            if own is not None:
                check_collection(name, own, local)
        if y is None and self._formula_response() is None:
            raise ValueError("This estimator requires y to be passed, but the target y is None.")
        with restoring(self), session(running_client(self.client)) as cluster:
            task.call_on_fit_task_begin(estimator=self, **data)
            fit = fit_sums if has_sums(self) else fit_rows
            watched = self.verbose or hasattr(self, "_skl_callbacks")
            watch = partial(Watch, self, task, data) if watched else None
            for text, category in fit(self, cluster, (X, y, sample_weight), watch):
                warnings.warn(text, category, stacklevel=3)
            task.call_on_fit_task_end(estimator=self, **data, reconstruction_attributes={})
        return self

    def to_local(self):
        """The same model as a local estimator, which predicts without Dask.

        Returns
        -------
        MixedEffectsRegressor or MixedEffectsClassifier
            With the parameters of this one and, if it is fitted, its fitted state.
        """
        local = copy(self)
        local.__dict__.pop("_client", None)
        local.__class__ = self._local_class
        return local

    def __getstate__(self):
        state = super().__getstate__()
        state.pop("_client", None)
        return state

    def _training(self, X, y, sample_weight):
        raise TypeError(
            "X: what needs the rows of the fit reads them in this process: "
            "to_local() gives the model that takes X.compute() and y.compute()."
        )

    def _lazy(self, X, method, meta, **settings):
        """A lazy collection of what a method of the local model says, row by row of X."""
        check_is_fitted(self)
        check_collection("X", X, self._local_class.__name__)
        return Predictor(self, X)(method, meta, settings)


class WithoutIntervals:
    """What a regressor of collections does not have besides."""

    predict_interval = LocalOnly()
    predict_quantiles = LocalOnly()


class DaskMixedEffectsRegressor(OnDask, WithoutIntervals, MixedEffectsRegressor):
    """`MixedEffectsRegressor` of Dask DataFrames and arrays, fitted on the workers of a client.

    Parameters, attributes and estimates are those of `MixedEffectsRegressor`. Gaussian models by
    "exact" and "cg" are fitted from sums that each partition gives once; for others the rows stay
    on the workers and are passed over again and again. The client holds what has
    the size of the levels, and for other families, or with `verbose` or callbacks, of the pairs of
    them that occur, which of crossed terms may be nearly as many as rows. Nothing of Dask stays in
    a fitted model.

    Attributes
    ----------
    client : distributed.Client
        The one to use, which may be set; the one started last, otherwise.

    See Also
    --------
    sklmm.MixedEffectsRegressor : Has the parameters and the attributes.

    Examples
    --------
    >>> import dask.dataframe as dd
    >>> from dask.distributed import Client
    >>> from sklmm.dask import DaskMixedEffectsRegressor
    >>> from sklmm.datasets import load_sleepstudy
    >>> table = load_sleepstudy(as_frame=True).frame
    >>> table = dd.from_pandas(table, npartitions=2)
    >>> with Client(processes=False, dashboard_address=":0") as client:
    ...     model = DaskMixedEffectsRegressor(["(1 + Days | Subject)"])
    ...     model = model.fit(table[["Days", "Subject"]], table["Reaction"])
    >>> model.coef_.round(2)
    array([10.47])
    >>> model.predict(table[["Days", "Subject"]]).head(2).round(1).tolist()
    [253.7, 273.3]
    """

    _local_class = MixedEffectsRegressor

    def predict(self, X, return_std=False, include_random=True):
        """The mean response of each row, lazily: nothing is computed before it is asked for.

        Parameters
        ----------
        X : dask DataFrame or array of shape (n_rows, n_columns)
        return_std : bool, default=False
            Also give the SD of a new observation, as `MixedEffectsRegressor.predict` does. Compute
            both together, ``dask.compute(mean, std)``: they are made in one pass.
        include_random : bool or list of str, default=True
            As in `MixedEffectsRegressor.predict`.

        Returns
        -------
        mean : dask Series named as the response, or array of shape (n_rows,)
            In partitions and with the index of X.
        std : dask Series or array of shape (n_rows,)
            Only with `return_std`.
        """
        check_is_fitted(self)
        name, settings = self._fitted.response_name, {"include_random": include_random}
        if not return_std:
            return self._lazy(X, "predict", {name: float}, **settings)
        both = self._lazy(X, "predict", {"mean": float, "std": float}, return_std=True, **settings)
        if isinstance(both, dd.DataFrame):
            return both["mean"].rename(name), both["std"]
        return both[:, 0], both[:, 1]

    def score(self, X, y, sample_weight=None):
        """R^2 of the predicted mean; it is computed, partition by partition.

        Parameters
        ----------
        X : dask DataFrame or array of shape (n_rows, n_columns)
        y : dask Series or array of shape (n_rows,), or (n_rows, 2) of counts
        sample_weight : dask Series or array of shape (n_rows,), optional

        Returns
        -------
        float
        """
        check_is_fitted(self)
        return r_squared(self, X, y, sample_weight)


class DaskMixedEffectsClassifier(OnDask, MixedEffectsClassifier):
    """`MixedEffectsClassifier` of Dask DataFrames and arrays, fitted on the workers of a client.

    Parameters, attributes and estimates are those of `MixedEffectsClassifier`. The rows stay on
    the workers, which pass over them again and again. The client holds what has the size of the
    levels and of the pairs of them that occur.

    Attributes
    ----------
    client : distributed.Client
        The one to use, which may be set; the one started last, otherwise.

    See Also
    --------
    sklmm.MixedEffectsClassifier : Has the parameters and the attributes.
    """

    _local_class = MixedEffectsClassifier

    def predict_proba(self, X, include_random=True):
        """Probabilities of the classes, lazily.

        Parameters
        ----------
        X : dask DataFrame or array of shape (n_rows, n_columns)
        include_random : bool or list of str, default=True
            As in `MixedEffectsClassifier.predict_proba`.

        Returns
        -------
        dask DataFrame with a column a class, or array of shape (n_rows, n_classes)
            In partitions and with the index of X.
        """
        check_is_fitted(self)
        meta = dict.fromkeys(self.classes_.tolist(), float)
        return self._lazy(X, "predict_proba", meta, include_random=include_random)

    def predict(self, X, include_random=True):
        """The most probable class of each row, lazily.

        Parameters
        ----------
        X : dask DataFrame or array of shape (n_rows, n_columns)
        include_random : bool or list of str, default=True

        Returns
        -------
        dask Series named as the response, or array of shape (n_rows,)
            In partitions and with the index of X.
        """
        check_is_fitted(self)
        dtype = self.classes_.dtype
        if self.missing == "drop" and dtype.kind != "f":
            # Rows that miss a value have no class: nan, in whatever partition they are.
            dtype = np.dtype(float if dtype.kind in "iu" else object)
        meta = {self._fitted.response_name: dtype}
        return self._lazy(X, "predict", meta, include_random=include_random)

    def decision_function(self, X, include_random=True):
        """Link of the second class's averaged probability, lazily.

        Parameters
        ----------
        X : dask DataFrame or array of shape (n_rows, n_columns)
        include_random : bool or list of str, default=True

        Returns
        -------
        dask Series or array of shape (n_rows,)
            In partitions and with the index of X.
        """
        check_is_fitted(self)
        # Of two classes only.
        self.to_local().decision_function  # noqa: B018
        meta = {self._fitted.response_name: float}
        return self._lazy(X, "decision_function", meta, include_random=include_random)

    def score(self, X, y, sample_weight=None):
        """Accuracy of the predicted classes; it is computed, partition by partition.

        Parameters
        ----------
        X : dask DataFrame or array of shape (n_rows, n_columns)
        y : dask Series or array of shape (n_rows,)
        sample_weight : dask Series or array of shape (n_rows,), optional

        Returns
        -------
        float
        """
        check_is_fitted(self)
        return accuracy(self, X, y, sample_weight)
