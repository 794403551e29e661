"""What follows a fit of related levels: predictions, draws, intervals, files, new rows."""

import pickle

import joblib
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sklmm import MixedEffectsRegressor, RandomEffect, Relationship, families
from sklmm._fitted.bootstrap import simulate


@pytest.fixture(scope="module")
def model(relationship, records):
    terms = [RandomEffect("animal", covariance=relationship), "herd"]
    return MixedEffectsRegressor(terms, fixed_effects=["x"], random_state=0).fit(*records)


def marginal(model, relationship, X):
    """V of the rows at the estimates."""
    animal, herd, sigma = model.variance_components_["sd"]
    A = relationship.to_frame().loc[X["animal"], X["animal"]].to_numpy()
    V = animal**2 * A + herd**2 * (X["herd"].to_numpy()[:, None] == X["herd"].to_numpy())
    return V + sigma**2 * np.eye(len(X))


def test_effects_of_a_bootstrap_are_drawn_with_their_relationship(model, relationship, records):
    X, y = records
    design, rng = model._fitted.spec.apply(X), np.random.default_rng(0)
    response = families.Gaussian().bind(y.to_numpy(), np.ones(len(y)))
    draws = np.array([simulate(design, response, model.result_, rng) for _ in range(500)])
    draws -= model.predict(X, include_random=False)
    V = marginal(model, relationship, X)
    for direction in (np.ones(len(y)), (X["animal"] > 200).to_numpy(float)):
        values = (draws @ direction) ** 2
        error = values.std() / np.sqrt(len(values))
        assert values.mean() == pytest.approx(direction @ V @ direction, abs=4 * error)


def test_an_unknown_animal_is_a_founder(model, records):
    X, _ = records
    animal, herd, sigma = model.variance_components_["sd"]
    row = X[:1].assign(animal=99999)
    mean, std = model.predict(row, return_std=True, include_random=["animal"])
    left_out, same = model.predict(row, return_std=True, include_random=False)
    assert (mean[0], std[0]) == (left_out[0], same[0])
    # The coefficients' own variance is little.
    assert 0 < std[0] ** 2 - (animal**2 + herd**2 + sigma**2) < 0.1


def test_shares_of_variance_are_those_of_the_rows(model, relationship, records):
    X, _ = records
    animal, herd, sigma = model.variance_components_["sd"]
    mean = 1 + relationship.inbreeding[X["animal"]].mean()
    total = mean * animal**2 + herd**2 + sigma**2
    np.testing.assert_allclose(model.icc(), [mean * animal**2 / total, herd**2 / total])


def test_samples_share_the_posterior_of_unobserved_animals(model, records):
    X, _ = records
    row = X[:1].assign(animal=240)
    mean, std = model.predict(row, return_std=True)
    draws = model.sample_y(row, 4000, random_state=0)[0]
    assert draws.mean() == pytest.approx(mean[0], abs=4 * std[0] / np.sqrt(4000))
    assert draws.std() == pytest.approx(std[0], rel=0.06)


def test_files_copies_and_workers(model, records, tmp_path):
    X, y = records
    joblib.dump(model, tmp_path / "model.joblib")
    for again in (pickle.loads(pickle.dumps(model)), joblib.load(tmp_path / "model.joblib")):
        np.testing.assert_array_equal(again.predict(X), model.predict(X))
        assert again.random_effects[0] == model.random_effects[0]
    other = clone(model).fit(X, y)
    np.testing.assert_array_equal(other.predict(X), model.predict(X))
    pipe = make_pipeline(FunctionTransformer(), clone(model).set_params(max_iter=20))
    search = GridSearchCV(pipe, {"mixedeffectsregressor__method": ["ml", "reml"]}, cv=2, n_jobs=2)
    assert search.fit(X, y).best_score_ > 0.2


def test_an_update_is_refused_and_a_warm_start_has_what_all_rows_tell(model, records):
    """New records of one animal change the effects of all: the dense posterior of them."""
    X, y = records
    held = X["animal"] == 187
    begun = clone(model).set_params(warm_start=True).fit(X[~held], y[~held])
    before = begun.random_effects_["animal"].copy()
    with pytest.raises(ValueError, match=r"the levels of 'animal' have .*: fit again with all"):
        begun.update(X[held], y[held])
    pd.testing.assert_frame_equal(begun.random_effects_["animal"], before)
    begun.fit(X, y)
    np.testing.assert_allclose(
        begun.random_effects_["animal"], model.random_effects_["animal"], atol=1e-4
    )


def test_it_starts_warm(model, records):
    X, y = records
    other = clone(model).set_params(warm_start=True).fit(X, y)
    first = other.n_iter_
    assert other.fit(X, y).n_iter_ < first
    np.testing.assert_allclose(
        other.variance_components_["sd"], model.variance_components_["sd"], rtol=1e-5
    )


@pytest.mark.parametrize("family", ["gaussian", "poisson"])
def test_a_multiple_of_a_relationship_is_the_same_model(relationship, records, family):
    X, y = records
    y = y if family == "gaussian" else np.round(np.exp(y / 5))
    found = []
    for multiple in (1.0, 1e-6, 1e6):
        other = Relationship(relationship.matrix / multiple, relationship.labels, "precision")
        terms = [RandomEffect("animal", slopes=["x"], covariance=other), "herd"]
        model = MixedEffectsRegressor(terms, fixed_effects=["x"], family=family).fit(X, y)
        sds = model.variance_components_["sd"].to_numpy()[:2] * np.sqrt(multiple)
        assert model.n_iter_ < 15
        found.append([*sds, model.loglik_])
        pinned = RandomEffect("animal", covariance=other, sd=0.8 / np.sqrt(multiple))
        fixed = clone(model).set_params(random_effects=[pinned, "herd"]).fit(X, y)
        found[-1].append(fixed.loglik_)
    np.testing.assert_allclose(found[1], found[0], rtol=1e-4)
    np.testing.assert_allclose(found[2], found[0], rtol=1e-4)


def test_profile_intervals(model, records):
    X, y = records
    found = model.conf_int(method="profile", X=X, y=y)
    animal = found.iloc[2]
    wald = model.conf_int().iloc[2]
    assert animal["lower"] < 1.15 < animal["upper"]
    np.testing.assert_allclose(animal, wald, atol=0.05)


def test_genomic_prediction_by_a_dense_matrix():
    """GBLUP: relationships of markers, individuals without a phenotype."""
    rng = np.random.default_rng(0)
    markers = rng.binomial(2, rng.uniform(0.1, 0.9, 400), size=(150, 400)) - 1.0
    markers -= markers.mean(axis=0)
    K = markers @ markers.T / markers.var(axis=0).sum() + 0.01 * np.eye(150)
    lines = [f"line{i}" for i in range(150)]
    relationship = Relationship(pd.DataFrame(K, lines, lines))
    values = relationship.back(rng.normal(size=(150, 1)))[:, 0]
    table = pd.DataFrame({"line": np.repeat(lines[:100], 3)})
    y = 5 + np.repeat(values[:100], 3) + rng.normal(0, 0.7, 300)
    model = MixedEffectsRegressor([RandomEffect("line", covariance=relationship)]).fit(table, y)
    sd, sigma = model.variance_components_["sd"]
    V = sd**2 * K[:100, :100].repeat(3, 0).repeat(3, 1) + sigma**2 * np.eye(300)
    mean = sd**2 * K[:, :100].repeat(3, 1) @ np.linalg.solve(V, y - model.intercept_)
    np.testing.assert_allclose(model.random_effects_["line"]["Intercept"], mean, atol=1e-6)


def test_regions_by_a_sparse_precision():
    """A proper CAR: a region without data has its neighbours' level."""
    side, rng = 9, np.random.default_rng(0)
    path = sparse.diags_array(np.ones(2), offsets=[-1, 1], shape=(side, side))
    W = sparse.kron(path, sparse.eye_array(side)) + sparse.kron(sparse.eye_array(side), path)
    Q = sparse.diags_array(W.sum(axis=1)) - 0.98 * W
    relationship = Relationship(Q, labels=range(side**2), kind="precision")
    level = relationship.back(rng.normal(size=(side**2, 1)))[:, 0]
    region = rng.integers(side**2, size=400)
    centre = side**2 // 2
    region = region[region != centre]
    y = rng.poisson(np.exp(1 + level[region])).astype(float)
    terms = [RandomEffect("region", covariance=relationship)]
    model = MixedEffectsRegressor(terms, family="poisson").fit(pd.DataFrame({"region": region}), y)
    found = model.random_effects_["region"]["Intercept"]
    around = found[[centre - 1, centre + 1, centre - side, centre + side]]
    # Given all others it is 0.98 / 4 times the sum of the four neighbours.
    assert found[centre] == pytest.approx(0.98 * around.mean(), abs=1e-5)
