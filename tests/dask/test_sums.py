"""Sums of partitions, without a cluster: any partitioning and order of them is the same fit."""

from functools import cache

import dask
import dask.dataframe as dd
import numpy as np
import pytest
from dask.sizeof import sizeof
from hypothesis import given, settings
from hypothesis import strategies as st

from sklmm import (
    ConjugateGradient,
    Exact,
    Gaussian,
    Laplace,
    MixedEffectsRegressor,
    RandomEffect,
)
from sklmm.dask import DaskMixedEffectsClassifier, DaskMixedEffectsRegressor, sums
from sklmm.dask.cluster import Fault, answer
from tests.test_batches import RELATED, assert_same, parts, table


class Here:
    """A `Session` whose tasks are done at once, in this process: what they answer is the future."""

    def __init__(self, frames):
        self.token = [(X[["x", "t", "g", "h", "w"]], X["stars"], X["times"]) for X in frames]

    def submit(self, name, function, *arguments, which=None):
        return answer(function, which, *arguments)

    def compute(self, delayed):
        return list(dask.compute(*delayed, scheduler="sync"))

    def later(self, name, function, *arguments, which=None):
        return dask.delayed(answer, pure=False)(function, which, *arguments)

    def first(self, task, rows):
        answers = (self.compute([task(number)])[0] for number in range(len(rows)))
        return next((own for own in answers if own is not None), None), []

    def release(self, answers):
        pass

    def wait(self, answers):
        for own in answers:
            if isinstance(own, Fault):
                raise own.error()

    def result(self, answer):
        return self.results([answer])[0]

    def results(self, answers):
        self.wait(answers)
        return answers

    def nbytes(self, answers):
        self.wait(answers)
        return sum(map(sizeof, answers))

    def host_threads(self):
        return {}

    def least_memory(self):
        return np.inf


@pytest.fixture(autouse=True)
def here(monkeypatch):
    monkeypatch.setattr(sums, "with_threads", lambda _, function, *arguments: function(*arguments))
    # Those of collections are made in other tests, and take longer than the sums.
    monkeypatch.setattr(sums, "partitions", lambda X, y, weights, pieces: pieces)


MODELS = [
    {"random_effects": ["(1 + x | g)", "h"]},
    {"random_effects": ["(1 | h/g)"], "offset": "w", "e_step": "cg"},
    {"random_effects": ["(1 + x || g)", "(1 | h)"], "family": Gaussian(weights="precision")},
    {"random_effects": ["g", "h"], "method": "ml", "missing": "drop"},
    {"random_effects": [RandomEffect("g", ["x"], covariance=RELATED), "h"]},
]


def rows():
    X, y = table(np.random.default_rng(0), 80)
    weights = 1.0 + np.random.default_rng(1).integers(0, 3, 80)
    return X.assign(stars=y, times=weights)


@cache
def whole(number):
    frame = rows()
    model = MixedEffectsRegressor(fixed_effects=["x", "t"], random_state=0, **MODELS[number])
    return model.fit(frame, frame["stars"], frame["times"])


# 200 in all.
@pytest.mark.parametrize("number", range(5))
@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(seed=st.integers(0, 2**31), most=st.sampled_from([3, 8, 40]))
def test_any_partitions_in_any_order_are_one_table(number, seed, most):
    frame, model = rows(), whole(number)
    pieces = [frame.iloc[own] for own in parts(np.random.default_rng(seed), len(frame), most)]
    own = DaskMixedEffectsRegressor(**model.get_params(deep=False))
    sums.fit_sums(own, Here(pieces), (dd.from_pandas(frame), None, None), None)
    assert_same(own.to_local(), model, frame)


def test_what_sums_serve():
    assert sums.has_sums(DaskMixedEffectsRegressor())
    for e_step in ("exact", "cg", Exact(), ConjugateGradient()):
        assert sums.has_sums(DaskMixedEffectsRegressor(e_step=e_step))
    assert sums.has_sums(DaskMixedEffectsRegressor(family=Gaussian(sigma=1.0)))
    for other in (
        {"e_step": "hmc"},
        {"e_step": Laplace()},
        {"m_step": "adam"},
        {"family": "poisson"},
    ):
        assert not sums.has_sums(DaskMixedEffectsRegressor(**other))
    assert not sums.has_sums(DaskMixedEffectsClassifier())
