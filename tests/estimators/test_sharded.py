"""Models of any family from parts of a table that are elsewhere, beside the whole table's."""

import warnings
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.exceptions import ConvergenceWarning

from sklmm import HMC, MixedEffectsClassifier, MixedEffectsRegressor, RandomEffect
from sklmm._estimators.sharded import begun_by, fit_parts
from sklmm._estimators.warnings import warn
from sklmm.engine.rows.protocol import Each
from sklmm.families import NegativeBinomial, Poisson
from sklmm.result import Status
from tests.engine.rows.parts import Pickled
from tests.test_batches import RELATED

N = 600
TERMS = ["(1 + t | g)", "h"]


def make(seed=0):
    """Columns, a linear predictor, and weights, some of them 0."""
    rng = np.random.default_rng(seed)
    X = pd.DataFrame({"g": rng.integers(30, size=N).astype(str), "h": rng.integers(15, size=N)})
    X["x"], X["t"], X["o"] = rng.normal(5, 1, N), rng.normal(size=N), rng.normal(size=N) / 10
    eta = 0.3 * X["x"] - 1.5 + rng.normal(size=30)[X["g"].astype(int)] * (0.5 + 0.3 * X["t"])
    eta = (eta + 0.4 * rng.normal(size=15)[X["h"]]).to_numpy()
    return X, eta, rng.integers(4, size=N).astype(float)


def responses(eta, seed=1):
    """(estimator's class, y, parameters) of each family."""
    rng = np.random.default_rng(seed)
    mu, latent = 1 / (1 + np.exp(-eta)), eta + rng.logistic(size=N)
    trials = rng.integers(6, size=N)
    hits = rng.binomial(trials, mu)
    level = np.digitize(latent, [-0.5, 1])
    named = pd.Series(pd.Categorical.from_codes(level, ["low", "mid", "high"], ordered=True))
    one, two = MixedEffectsRegressor, MixedEffectsClassifier
    return {
        "bernoulli": (two, np.where(latent > 0, "yes", "no"), {}),
        "numbers": (one, (latent > 0) + 0.0, {"family": "bernoulli"}),
        "poisson": (one, rng.poisson(np.exp(eta)) + 0.0, {"family": "poisson", "offset": "o"}),
        "negative_binomial": (
            one,
            rng.poisson(np.exp(eta) * rng.gamma(2, 0.5, N)) + 0.0,
            {"family": NegativeBinomial(), "offset": "o"},
        ),
        "ordinal": (two, named, {"family": "ordinal"}),
        "ratings": (one, level / 2, {"family": "ordinal"}),
        "gamma": (one, np.exp(eta) * rng.gamma(3, 1 / 3, N), {"family": "gamma", "offset": "o"}),
        "beta": (one, np.clip(rng.beta(5 * mu, 5 - 5 * mu), 0.001, 0.999), {"family": "beta"}),
        "student_t": (one, 100 + 3 * eta + rng.standard_t(4, N), {"family": "student_t"}),
        "counts": (one, np.column_stack([hits, trials - hits]), {"family": "binomial"}),
        "shares": (one, hits / np.maximum(trials, 1), {"family": "binomial"}),
        "gaussian": (one, 100 + 3 * eta + rng.normal(size=N), {"offset": "o"}),
    }


def cut(X, y, weights, ends):
    """The parts of a table between its ends: empty ones, too."""
    ends = [0, *ends, len(X)]
    return Each(
        (
            X.iloc[a:b],
            y.iloc[a:b] if isinstance(y, pd.Series) else y[a:b],
            None if weights is None else weights[a:b],
        )
        for a, b in pairwise(ends)
    )


def fit_shards(model, pieces, n_shards=2):
    names, executor = [f"partition {i}" for i in range(len(pieces))], Pickled()
    executor.n_threads = n_shards
    begun = begun_by(model, executor, pieces, names)
    vars(model).update(vars(begun.model))
    warn(fit_parts(model, begun, executor, pieces, names))
    return model


def distance(one, two):
    """The largest difference of two models' estimates, in standard errors."""
    values = [np.concatenate([m.result_.coef, m.result_.natural]) for m in (one, two)]
    se = np.sqrt(np.diag(two.result_.natural_cov))
    return np.nanmax(np.abs(values[0] - values[1]) / np.where(se > 0, se, 1))


@pytest.mark.parametrize("name", list(responses(np.zeros(N))))
def test_laplace_is_that_of_the_whole_table(name):
    X, eta, weights = make()
    kind, y, parameters = responses(eta)[name]
    known = {"e_step": "laplace", "random_state": 0, **parameters}
    whole = kind(TERMS, **known).fit(X, y, weights)
    model = fit_shards(kind(TERMS, **known), cut(X, y, weights, [70, 70, 100, 400]))
    assert distance(model, whole) < 1e-6
    assert model.result_.loglik == pytest.approx(whole.result_.loglik, rel=1e-10)
    assert model.result_.n_obs == whole.result_.n_obs
    assert model._fitted.fingerprint.data == whole._fitted.fingerprint.data
    np.testing.assert_allclose(
        model._fitted.fingerprint.sums, whole._fitted.fingerprint.sums, atol=1e-9
    )
    told = "predict_proba" if kind is MixedEffectsClassifier else "predict"
    predictions = [getattr(m, told)(X[:9]) for m in (model, whole)]
    np.testing.assert_allclose(*predictions, rtol=1e-5)
    if model._fitted.spread is not None:
        for own, other in zip(model._fitted.spread, whole._fitted.spread, strict=True):
            np.testing.assert_allclose(own, other, rtol=1e-6)


@pytest.mark.parametrize("name", ["three", "poisson"])
def test_chains_are_those_of_the_whole_table(name):
    X, eta, weights = make()
    kind, y, parameters = responses(eta)["ordinal" if name == "three" else name]
    if name == "three":
        y, parameters = np.asarray(y), {}
    known = {"random_state": 0, "max_iter": 30, **parameters}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        X = X.drop(columns="g")
        whole = kind(["h"], e_step=HMC(backend="numpy"), **known).fit(X, y, weights)
        pieces = cut(X, y, weights, [70, 100, 400])
        model = fit_shards(kind(["h"], e_step="auto", **known), pieces)
    assert isinstance(model.e_step_, HMC)
    errors = whole.result_.mc_error
    values = [np.concatenate([m.result_.coef, m.result_.natural]) for m in (model, whole)]
    np.testing.assert_array_less(np.abs(values[0] - values[1]), 0.1 * errors + 1e-6)
    assert model.loglik_ == pytest.approx(whole.loglik_, abs=4 * whole.result_.loglik_error + 0.1)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, N), max_size=12), st.integers(1, 6), st.randoms())
def test_any_parts_in_any_order_have_the_same_model(ends, n_shards, random):
    X, eta, weights = make()
    kind, y, parameters = responses(eta)["poisson"]
    known = {"e_step": "laplace", **parameters}
    pieces = list(cut(X, y, weights, sorted(ends)))
    random.shuffle(pieces)
    model = fit_shards(kind(["g", "h"], **known), Each(pieces), n_shards)
    assert distance(model, _whole()) < 1e-6


_KNOWN = []


def _whole():
    if not _KNOWN:
        X, eta, weights = make()
        kind, y, parameters = responses(eta)["poisson"]
        _KNOWN.append(kind(["g", "h"], e_step="laplace", **parameters).fit(X, y, weights))
    return _KNOWN[0]


def test_rows_that_miss_a_value_are_left_out():
    X, eta, weights = make()
    kind, y, parameters = responses(eta)["poisson"]
    X, y = X.astype({"h": float}), y.copy()
    X.loc[[3, 200], "x"], X.loc[250, "h"], y[500] = np.nan, np.nan, np.nan
    X.loc[:70, "t"] = np.nan
    known = {"e_step": "laplace", "missing": "drop", **parameters}
    whole = kind(TERMS, **known).fit(X, y, weights)
    model = fit_shards(kind(TERMS, **known), cut(X, y, weights, [70, 100, 400]))
    assert distance(model, whole) < 1e-6
    assert model._fitted.n_missing == whole._fitted.n_missing


def test_an_array_a_dropped_column_and_no_effects():
    X, eta, _ = make()
    y = responses(eta)["poisson"][1]
    X = X.drop(columns="g").to_numpy()
    X = np.column_stack([X, X[:, 1] + 2])
    for terms in ([0], []):
        known = {"family": "poisson", "e_step": "laplace"}
        pieces = Each((X[a : a + 200], y[a : a + 200], None) for a in (0, 200, 400))
        with pytest.warns(UserWarning, match="linear combinations") as caught:
            whole = MixedEffectsRegressor(terms, **known).fit(X, y)
        with pytest.warns(UserWarning, match="linear combinations") as own:
            model = fit_shards(MixedEffectsRegressor(terms, **known), pieces)
        assert str(caught[0].message) == str(own[0].message)
        assert distance(model, whole) < 1e-6


@pytest.mark.parametrize(("family", "e_step"), [("poisson", "nuts"), ("gaussian", "hmc")])
def test_without_effects_no_e_step_reads_rows(family, e_step):
    X, eta, weights = make()
    y, X = responses(eta)["poisson"][1], X[["x", "t"]]
    model = MixedEffectsRegressor(family=family, e_step=e_step, random_state=0)
    whole = MixedEffectsRegressor(family=family, e_step=e_step, random_state=0).fit(X, y, weights)
    assert distance(fit_shards(model, cut(X, y, weights, [100])), whole) < 1e-6
    assert type(model.e_step_) is type(whole.e_step_)


def test_errors_name_the_part():
    X, eta, _ = make()
    kind, y, parameters = responses(eta)["poisson"]
    model, bad = kind(["g"], **parameters), y.copy()
    bad[120] = -1.0
    with pytest.raises(ValueError, match=r"partition 2: Poisson: y must be .*-1.0 \(row 20\)"):
        fit_shards(model, cut(X, bad, None, [50, 100]))
    weights = np.ones(N)
    weights[53] = -1
    with pytest.raises(ValueError, match=r"partition 1: .*row 3 "):
        fit_shards(model, cut(X, y, weights, [50, 100]))
    with pytest.raises(ValueError, match="there is no row to fit"):
        fit_shards(model, cut(X, y, np.zeros(N), [50, 100]))
    two, labels = MixedEffectsClassifier(["g"]), np.array(["a", "b"] * (N // 2), object)
    pieces = [*cut(X[:100], labels[:100], None, [50]), (X[100:], np.arange(500) % 2, None)]
    with pytest.raises(TypeError, match="like 0 in partition 2, and like 'a' in partition 0"):
        fit_shards(two, Each(pieces))
    labels = np.where(np.arange(N) < 100, "a", "b")
    labels[-1] = "c"
    with pytest.raises(ValueError, match=r"a third is c \(partition 2\)"):
        fit_shards(two.set_params(family="bernoulli"), cut(X, labels, None, [50, 100]))
    with pytest.raises(ValueError, match="y has one class only"):
        fit_shards(two, cut(X, np.full(N, "a"), None, [50, 100]))
    tied = kind(["g", RandomEffect(["h", "g"], weights="equal")], **parameters)
    with pytest.raises(ValueError, match=r"partition 0: .* has memberships, .* family='gaussian'"):
        fit_shards(tied, cut(X.assign(g=X["g"].astype(int)), y, None, [50]))
    related = kind(["g", RandomEffect("h", covariance=RELATED)], **parameters)
    with pytest.raises(
        ValueError, match=r"partition 0: .* has a Relationship, .* family='gaussian'"
    ):
        fit_shards(related, cut(X[X["h"] < 11], y[X["h"] < 11], None, [50]))


def test_a_fit_begins_by_some_rows(monkeypatch):
    X, eta, weights = make()
    kind, y, parameters = responses(eta)["poisson"]
    monkeypatch.setattr("sklmm._estimators.learning.SAMPLE", 30)
    model = fit_shards(kind(["g", "h"], e_step="laplace", **parameters), cut(X, y, weights, [300]))
    assert distance(model, _whole()) < 1e-6
    bad = np.where(X.index == 10, -1.0, y)
    with pytest.raises(ValueError, match=r"partition 0: .* \(row 10\)"):
        fit_shards(kind(["g"], **parameters), cut(X, bad, None, [300]))


def test_orders_of_classes_that_contradict():
    X, eta, _ = make()
    _, y, parameters = responses(eta)["ordinal"]
    pieces = list(cut(X, y, None, [200]))
    other = pieces[1][1].cat.reorder_categories(["mid", "low", "high"], ordered=True)
    pieces[1] = pieces[1][0], other, None
    with pytest.raises(ValueError, match="mid < low < high in partition 1"):
        fit_shards(MixedEffectsClassifier(["g"], **parameters), Each(pieces))


@pytest.mark.parametrize("e_step", ["nuts", "quadrature", HMC(backend="tensorflow")])
def test_e_steps_that_read_all_rows_in_one_place(e_step):
    model = MixedEffectsRegressor(["g"], family="poisson", e_step=e_step)
    with pytest.raises(ValueError, match=r"e_step=.*use 'laplace', or 'hmc'"):
        fit_shards(model, Each())
    with pytest.raises(ValueError, match="m_step='adam'"):
        fit_shards(MixedEffectsRegressor(["g"], e_step="hmc", m_step="adam"), Each())


def test_separated_classes(monkeypatch):
    X, eta, _ = make()
    X["f"] = np.arange(N) % 50 == 7
    y = np.where((responses(eta)["numbers"][1] > 0) | X["f"], "a", "b")
    columns, known = X[["h", "x", "f"]].astype(float), {"e_step": "laplace"}
    with pytest.warns(ConvergenceWarning, match="'f' has no finite"):
        whole = MixedEffectsClassifier(["h"], **known).fit(columns, y)
    pieces = cut(columns, y, None, [200])
    with pytest.warns(ConvergenceWarning, match="'f' has no finite"):
        model = fit_shards(MixedEffectsClassifier(["h"], **known), pieces)
    assert model.result_.status is whole.result_.status is Status.SEPARATED
    np.testing.assert_allclose(model.coef_[0], whole.coef_[0], rtol=1e-3)
    assert np.isinf(model.fixed_effects_["std_error"]["f"])
    # Of some rows alone it is not known, but not unlikely.
    monkeypatch.setattr("sklmm._estimators.sharded.LOOKED_AT", 400)
    with pytest.warns(ConvergenceWarning, match="'f' seems to have no finite .* 400 rows"):
        model = fit_shards(MixedEffectsClassifier(["h"], **known), pieces)
    assert model.result_.status is not Status.SEPARATED


def test_means_that_an_identity_link_does_not_allow():
    X, _, _ = make()
    rng = np.random.default_rng(0)
    y = rng.poisson(np.maximum(X["x"] - 4.9, 0) / 2) + 0.0
    model = MixedEffectsRegressor(["h"], family=Poisson("identity"), e_step="laplace", max_iter=8)
    with pytest.warns(ConvergenceWarning, match="of 600 rows is 0 or below"):
        fit_shards(model, cut(X[["h", "x"]], y, None, [200]))


def test_a_formula_s_factors_have_all_levels_of_the_part_that_begins(monkeypatch):
    X, eta, _ = make()
    y = responses(eta)["poisson"][1]
    X = X.assign(y=y, z=np.where(np.arange(N) % 100 == 1, "rare", "often"))
    known = {"fixed_effects": "y ~ z", "family": "poisson", "e_step": "laplace"}
    monkeypatch.setattr("sklmm._estimators.learning.SAMPLE", 300)
    pieces = Each([(X[:400], None, None), (X[400:], None, None)])
    model = fit_shards(MixedEffectsRegressor(["g"], **known), pieces)
    assert distance(model, MixedEffectsRegressor(["g"], **known).fit(X)) < 1e-6


def test_large_tables_have_several_shards_a_thread(monkeypatch):
    X, eta, _ = make()
    known, joined, numbers = {"family": "poisson", "e_step": "laplace"}, Pickled.joined, []

    def counted(self, function, parts, groups, *arguments):
        numbers.append(len(groups))
        return joined(self, function, parts, groups, *arguments)

    monkeypatch.setattr(Pickled, "joined", counted)
    pieces = cut(X, responses(eta)["poisson"][1], None, range(50, N, 50))
    for largest in (100_000_000, 10_000):
        monkeypatch.setattr("sklmm._estimators.sharded.LARGEST", largest)
        fit_shards(MixedEffectsRegressor(["g"], **known), pieces)
    # Eight columns of numbers and one of places.
    assert numbers == [2, -(-N * (8 * 8 + 4) // 10_000)]
