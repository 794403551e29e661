"""The animal model: answers of the dense likelihood, breeding values, errors."""

import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone

from sklmm import MixedEffectsClassifier, MixedEffectsRegressor, RandomEffect, Relationship
from sklmm.engine import limits
from tests.test_batches import assert_same

DATA = Path(__file__).parents[1] / "data"
ANSWERS = json.loads((DATA / "animal.json").read_text())


def animal_model(relationship, **params):
    terms = [RandomEffect("animal", covariance=relationship), "herd"]
    return MixedEffectsRegressor(terms, fixed_effects=["x"], **params)


def sds(model):
    return model.variance_components_["sd"].to_numpy()


def blups(model, X, y, relationship):
    """Means and SDs [n_levels] of the animals' effects by dense matrices, at the estimates."""
    A = relationship.to_frame()
    animal, herd, sigma = sds(model)
    Z = A.loc[X["animal"]].to_numpy()
    H = X["herd"].to_numpy()[:, None] == X["herd"].to_numpy()
    V = animal**2 * A.loc[X["animal"], X["animal"]].to_numpy() + herd**2 * H
    V += sigma**2 * np.eye(len(y))
    fixed = model.intercept_ + X["x"].to_numpy() * model.coef_[0]
    mean = animal**2 * Z.T @ np.linalg.solve(V, y - fixed)
    cov = animal**2 * A.to_numpy() - animal**4 * Z.T @ np.linalg.solve(V, Z)
    return mean, np.sqrt(np.diag(cov))


@pytest.mark.parametrize("e_step", ["exact", "cg"])
@pytest.mark.parametrize("method", ["reml", "ml"])
def test_as_the_dense_likelihood_has_it(relationship, records, method, e_step):
    model = animal_model(relationship, method=method, e_step=e_step).fit(*records)
    answer = ANSWERS[f"animal_{method}"]
    expected = [answer["sd_animal"], answer["sd_herd"], answer["sigma"]]
    np.testing.assert_allclose(sds(model), expected, rtol=1e-4)
    found = model.fixed_effects_
    np.testing.assert_allclose(found["estimate"], [*answer["fixef"].values()], rtol=1e-5)
    np.testing.assert_allclose(found["std_error"], answer["se"], rtol=1e-4)
    assert model.converged_
    assert model.loglik_ == pytest.approx(answer["logLik"], abs=1e-4)
    assert model.loglik_error_ == 0


@pytest.mark.parametrize("most", [2500, 10])
def test_conjugate_gradients_know_the_likelihood_where_a_factor_is_affordable(
    relationship, records, monkeypatch, most
):
    """And beyond that by draws, with an error that they tell."""
    monkeypatch.setitem(limits.FACTORISED, "log_det", (most, np.inf))
    terms = [RandomEffect("animal", slopes=["x"], covariance=relationship), "herd"]
    exact, ours = (
        MixedEffectsRegressor(terms, fixed_effects=["x"], e_step=step).fit(*records)
        for step in ("exact", "cg")
    )
    if most == 10:
        assert 0.02 < ours.loglik_error_ < 2
        assert abs(ours.loglik_ - exact.loglik_) < 4 * ours.loglik_error_
        return
    assert ours.loglik_error_ == 0
    assert ours.loglik_ == pytest.approx(exact.loglik_, abs=1e-4)


def test_animals_without_records_are_predicted_from_their_relatives(relationship, records):
    X, y = records
    known = X["animal"] <= 150
    X, y = X[known], y[known]
    model = animal_model(relationship).fit(X, y)
    mean, std = blups(model, X, y, relationship)
    found = model.random_effects_["animal"]["Intercept"]
    assert found.index.tolist() == relationship.labels.tolist()
    np.testing.assert_allclose(found, mean, atol=1e-6)
    np.testing.assert_allclose(model.random_effects_std_["animal"]["Intercept"], std, rtol=1e-6)
    young = found[~found.index.isin(X["animal"])]
    assert len(young) >= 90
    assert young.std() > 0.3
    row = X[:1].assign(animal=240, herd=X["herd"].iloc[0])
    own = model.predict(row) - model.predict(row, include_random=["herd"])
    assert own[0] == pytest.approx(found[240])


def test_a_formula_names_the_column_of_a_relationship(relationship, records):
    X, y = records
    whole = X.assign(y=y)
    given = {"animal": relationship}
    make = MixedEffectsRegressor.from_formula
    model = make("y ~ x + (1 | animal) + (1 | herd)", relationships=given).fit(whole)
    other = animal_model(relationship).fit(X, y)
    assert model.loglik_ == pytest.approx(other.loglik_)
    assert clone(model).fit(whole).loglik_ == model.loglik_
    nested = make("y ~ (1 | animal/herd)", relationships=given).random_effects
    assert [term.relation for term in nested] == [relationship, None]
    with pytest.raises(ValueError, match="relationships: 'animal' is the column of no term"):
        make("y ~ x + (1 | herd)", relationships=given)
    with pytest.raises(ValueError, match="has a covariance of its own: leave out"):
        make("y ~ x + diag(1 + x | animal)", relationships=given)


def test_labels_that_the_relationship_lacks_are_named(relationship, records):
    X, y = records
    with pytest.raises(ValueError, match=r"'animal' has 2 label\(s\) that are not in its .* 999"):
        animal_model(relationship).fit(X.assign(animal=[999, 998, *X["animal"][2:]]), y)
    with pytest.raises(TypeError, match="'animal' has labels, like '187', of kind string"):
        animal_model(relationship).fit(X.assign(animal=X["animal"].astype(str)), y)
    with pytest.raises(ValueError, match="'animal:herd' is an interaction: make a column"):
        RandomEffect(("animal", "herd"), covariance=relationship)


@pytest.mark.parametrize("e_step", ["hmc", "nuts", "quadrature"])
def test_e_steps_that_do_not_take_related_levels(relationship, records, e_step):
    X, y = records
    model = animal_model(relationship, e_step=e_step, family="poisson")
    with pytest.raises(ValueError, match="known relationship are not: use 'auto' or 'laplace'"):
        model.fit(X, np.round(np.exp(y / 20)))


def test_unordered_classes_do_not_take_related_levels(relationship, records):
    X, _ = records
    terms = [RandomEffect("animal", covariance=relationship)]
    with pytest.raises(ValueError, match="no E-step that takes levels with a known relationship"):
        MixedEffectsClassifier(terms).fit(X, np.arange(600) % 3)


@pytest.mark.parametrize("e_step", ["exact", "cg"])
def test_batches_are_one_table(relationship, records, e_step):
    X, y = records
    model = animal_model(relationship, e_step=e_step, random_state=0)
    whole, order = clone(model).fit(X, y), np.random.default_rng(0).permutation(len(y))
    some = [(X.iloc[own], y.iloc[own]) for own in np.array_split(order, 4)]
    assert_same(clone(model).fit_batches(some), whole, X)
    # In another unit it is brought to this one.
    A = Relationship(100 * relationship.to_frame())
    scaled = animal_model(A, e_step=e_step, random_state=0)
    assert_same(clone(scaled).fit_batches(some), clone(scaled).fit(X, y), X)
    found = clone(model).set_params(tol=1e-6)
    for own, answers in some:
        found.partial_fit(own.astype({"animal": "category"}), answers)
        found = pickle.loads(pickle.dumps(found))
    assert_same(found, clone(model).set_params(tol=1e-6).fit(X, y), X)
    assert len(found.random_effects_["animal"]) == relationship.n_levels
    unborn = X[:3].assign(animal=10**6)
    with pytest.raises(ValueError, match=r"^batch 1: .* not in its Relationship, like 1000000"):
        found.fit_batches([some[0], (unborn, y[:3])])
    assert found.n_iter_ > 0


def test_sums_of_a_part_are_of_the_levels_that_occur_there(relationship, records):
    X, y = records
    model = animal_model(relationship).fit_batches([(X[:20], y[:20])], keep_sums=True)
    there = X["animal"][:20].nunique()
    assert model._sums.growing.sizes()[0] == there < relationship.n_levels
    apart = pickle.dumps(replace(model._sums, head=None))
    assert len(apart) < len(pickle.dumps(relationship)) < len(pickle.dumps(model._sums.head))


def test_slopes_of_related_levels(relationship, records):
    X, y = records
    rng = np.random.default_rng(0)
    slope = pd.Series(relationship.back(rng.normal(size=(240, 1)))[:, 0], relationship.labels)
    y = y + 0.6 * X["x"].to_numpy() * slope[X["animal"]].to_numpy()
    term = RandomEffect("animal", slopes=["x"], covariance=relationship)
    model = MixedEffectsRegressor([term, "herd"], fixed_effects=["x"]).fit(X, y)
    own = model.variance_components_.set_index("name").loc["x"]
    assert own["sd"] == pytest.approx(0.6, abs=3 * own["std_error"])
    apart = RandomEffect("animal", slopes=["x"], covariance=relationship, correlated=False)
    other = clone(model).set_params(random_effects=[apart, "herd"]).fit(X, y)
    assert other.loglik_ <= model.loglik_
    assert other.aic_ < model.aic_ + 2.5
