"""Partial proportional odds: cutpoints of rows in their order, and columns far from 0."""

import numpy as np
import pandas as pd
import pytest

from sklmm import MixedEffectsClassifier
from sklmm.families.nominal import PartialOrdinal
from sklmm.families.special import NUMPY

#: Of `table`, by clm(y ~ x, nominal = ~ z) of R's ordinal: the log-likelihood, the coefficients,
#: and cutpoints by what is added to z. It warns of those of -30, which are not in their order.
LOGLIK, SHIFTS, SLOPE = -608.0491, [0.286053, 0.2172135], 0.7715358
CUTPOINTS = {0: [-1.053504, 0.796143], -30: [7.528086, 7.312549], 20: [-6.774564, -3.548128]}


def table(n=600):
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"x": rng.normal(size=n), "z": rng.normal(size=n)})
    u = rng.logistic(size=n) + 0.7 * X.x
    return X, (u > -1.2 + 0.25 * X.z).astype(int) + (u > 0.8 + 0.1 * X.z)


def judged(n, levels):
    """The same with a judge of each row, of SD 1."""
    rng = np.random.default_rng(1)
    X = pd.DataFrame({"g": np.arange(n) % levels, "x": rng.normal(size=n), "z": rng.normal(size=n)})
    u = rng.logistic(size=n) + 0.7 * X.x + rng.normal(size=levels)[X.g]
    return X, (u > -1.2 + 0.25 * X.z).astype(int) + (u > 0.8 + 0.1 * X.z)


def fitted(X, y, terms=None, e_step="laplace"):
    given = {"fixed_effects": ["x"], "nominal": ["z"], "random_state": 0}
    return MixedEffectsClassifier(terms, family="ordinal", e_step=e_step, **given).fit(X, y)


@pytest.mark.parametrize("moved", CUTPOINTS)
def test_cutpoints_are_those_at_0_wherever_that_is(moved):
    X, y = table()
    X = X.assign(z=X.z + moved)
    model = fitted(X, y)
    assert model.loglik_ == pytest.approx(LOGLIK, abs=1e-4)
    np.testing.assert_allclose(model.nominal_effects_["estimate"], SHIFTS, atol=1e-4)
    np.testing.assert_allclose(model.coef_, SLOPE, atol=1e-4)
    np.testing.assert_allclose(
        model.family_params_["cutpoints"], CUTPOINTS[moved], atol=1e-4 + 1e-4 * abs(moved)
    )
    assert (model.fixed_effects_["estimate"][:2] == model.family_params_["cutpoints"]).all()


@pytest.mark.parametrize("e_step", ["laplace", "quadrature"])
def test_another_unit_and_origin_are_the_same_model(e_step):
    X, y = judged(300, 20)
    centre, unit = 1.7e9, 1e6
    one = fitted(X, y, ["g"], e_step)
    other = fitted(X.assign(z=centre + unit * X.z), y, ["g"], e_step)
    assert other.converged_
    assert other.loglik_ == pytest.approx(one.loglik_, abs=1e-6)
    # Cutpoints at z = 0 of the one are those at the centre of the other, with the errors of those.
    names = ["0|1", "1|2", "0|1: z", "1|2: z"]
    back = np.kron([[1.0, centre], [0.0, unit]], np.eye(2))
    labels = other._fitted.labels
    back = back @ labels.matrix[[labels.names.index(name) for name in names]]
    own = pd.concat([one.fixed_effects_[:2], one.nominal_effects_])
    found = np.concatenate([other.result_.coef, other.result_.natural])
    cov = back @ other.result_.natural_cov @ back.T
    np.testing.assert_allclose(back @ found, own["estimate"], atol=1e-4)
    np.testing.assert_allclose(np.sqrt(np.diag(cov)), own["std_error"], rtol=1e-4)
    np.testing.assert_allclose(
        other.predict_proba(X.assign(z=centre + 4 * unit * X.z)),
        one.predict_proba(X.assign(z=4 * X.z)),
        atol=1e-5,
    )


def test_draws_updates_and_intervals_know_the_origin():
    X, y = judged(200, 10)
    moved = X.assign(z=X.z + 50)
    one, other = (fitted(own[:150], y[:150], ["g"]) for own in (X, moved))
    pytest.importorskip("arviz_base")
    draws = other.to_arviz(random_state=0)["posterior"]["cutpoints"]
    fixed = other.fixed_effects_.iloc[:2]
    np.testing.assert_allclose(draws.std(("chain", "draw")), fixed["std_error"], rtol=0.1)
    away = (draws.mean(("chain", "draw")) - fixed["estimate"]) / fixed["std_error"]
    assert (abs(away) < 0.15).all()
    own = other.conf_int()
    np.testing.assert_allclose(own["lower"][:2], fixed["ci_lower"])
    for model, rows in ((one, X), (other, moved)):
        model.update(rows[150:], y[150:])
    np.testing.assert_allclose(other.predict_proba(moved), one.predict_proba(X), atol=1e-5)


def test_a_constant_column_is_no_shift():
    X, y = table(60)
    with pytest.raises(ValueError, match="nominal: its column 'z'"):
        fitted(X.assign(z=0.1), y)


@pytest.mark.parametrize("link", PartialOrdinal.links)
def test_cutpoints_that_cross_leave_the_class_between_no_probability(link):
    family, rng, n = PartialOrdinal(link), np.random.default_rng(1), 20_000
    shifts = np.array([[0.0, 0.3, 1.0], [0.5, -2.0, 0.5], [2.0, 0.0, -2.0]])
    params = {"spacing_1": 1.0, "spacing_2": 0.7}
    params |= {f"shift_{k + 1}": shifts[:, k : k + 1] for k in range(3)}
    eta = np.array([[0.2], [-0.4], [0.9]])
    p = family.probabilities(eta, params)[:, 0]
    assert p.min() >= 0
    np.testing.assert_allclose(p.sum(axis=1), 1)
    np.testing.assert_allclose(p[[1, 2, 2], [1, 1, 2]], 0, atol=1e-9)
    log_density = np.array([density(family, c, eta, params) for c in range(4)]).T
    np.testing.assert_allclose(np.exp(log_density), p, atol=1e-9)
    codes = np.arange(4)
    np.testing.assert_allclose(family.mean(eta, params)[:, 0], p @ codes)
    variance = p @ codes**2 - (p @ codes) ** 2
    np.testing.assert_allclose(family.variance(eta, params)[:, 0], variance)
    drawn = family.sample(np.repeat(eta, n, axis=1), params, rng)
    seen = (drawn[..., None] == codes).mean(axis=1)
    np.testing.assert_allclose(seen, p, atol=5 * 0.5 / np.sqrt(n))


def density(family, c, eta, params):
    y = np.full((3, 1), float(c))
    arrays = {name: np.broadcast_to(v, (3, 1)) for name, v in params.items()}
    return family.density(NUMPY, y, eta, arrays, family.link).value[:, 0]


@pytest.mark.parametrize("link", PartialOrdinal.links)
def test_derivatives_know_where_cutpoints_would_cross(link):
    family, step = PartialOrdinal(link), 1e-5
    # Of the second row the class 1 has no probability, and of the third the class 2.
    own = {"spacing_1": 1.0, "spacing_2": 0.7}
    own |= {"shift_1": [0.1, 1.5, 0.0], "shift_2": [0.0, 0.2, 0.5], "shift_3": [0.3, 0.5, -0.6]}
    params = {name: np.broadcast_to(np.reshape(v, (-1, 1)), (3, 1)) for name, v in own.items()}
    eta = np.array([[0.2], [0.4], [0.7]])

    def at(y, **moved):
        return family.density(NUMPY, y, eta, params | moved, family.link)

    for codes in ([1, 0, 0], [2, 2, 1], [0, 3, 3]):
        y = np.array(codes, float)[:, None]
        here = at(y)
        along, pairs = here.second
        for name, value in params.items():
            positive = name.startswith("spacing")
            sides = [value * np.exp(d) if positive else value + d for d in (step, -step)]
            up, down = (at(y, **{name: side}) for side in sides)
            slope = (up.value - down.value) / (2 * step)
            np.testing.assert_allclose(here.slopes[name] + 0 * eta, slope, atol=1e-6)
            np.testing.assert_allclose(
                along[name] + 0 * eta, (down.score - up.score) / (2 * step), atol=1e-6
            )
            for other in params:
                bend = (down.slopes[other] - up.slopes[other]) / (2 * step)
                pair = pairs.get((name, other), pairs.get((other, name)))
                np.testing.assert_allclose(pair + 0 * eta, bend + 0 * eta, atol=1e-5)


def test_a_start_whose_cutpoints_cross_in_some_rows_leads_to_the_maximum():
    X, y = judged(200, 10)
    cold = fitted(X, y, ["g"])
    warm = fitted(X[:150], y[:150], ["g"]).set_params(warm_start=True)
    probability = warm.predict_proba(X)[np.arange(200), y]
    assert probability.min() < 1e-6
    assert warm.fit(X, y).loglik_ == pytest.approx(cold.loglik_, abs=1e-6)


@pytest.mark.parametrize("nominal", ["~ 1", []])
def test_no_nominal_columns_are_the_plain_model(nominal):
    X, y = judged(200, 10)
    known = {"fixed_effects": ["x"], "family": "ordinal"}
    plain = MixedEffectsClassifier(["g"], **known).fit(X, y)
    model = MixedEffectsClassifier(["g"], nominal=nominal, **known).fit(X, y)
    assert model.loglik_ == pytest.approx(plain.loglik_, abs=1e-6)
