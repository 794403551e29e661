"""Links: the guide's table is the code's, and fits are glmmTMB's."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone

from sklmm import MixedEffectsRegressor, families

PAGE = Path(__file__).parents[2] / "docs" / "guide" / "families.md"
ROWS = re.findall(r"^\| `(\w+)` \|[^|]*\| ([^|]*) \|", PAGE.read_text(), re.MULTILINE)
#: Families without a choice, and a user's own.
ONE = {
    "CensoredGaussian": "identity",
    "Gaussian": "identity",
    "LogNormal": "identity",
    "StudentT": "identity",
    "Categorical": "softmax",
}


@pytest.mark.parametrize(("name", "links"), ROWS)
def test_the_table_of_links_is_what_the_families_take(name, links):
    kind = getattr(families, name)
    if name in ("CustomFamily", "ZeroInflated"):
        assert links in ("yours", "its own")
        return
    own = kind.links or (ONE[name],)
    assert links.split(", ") == list(own)
    for link in kind.links:
        kind(link=link).check()
        assert f'"{link}"' in kind.__doc__
    if kind.links:
        with pytest.raises(ValueError, match=f"available: use .*{kind.links[-1]}"):
            kind(link="square").check()


def test_the_table_has_every_family():
    public = {n for n in families.__all__ if isinstance(getattr(families, n), type)}
    assert {name for name, _ in ROWS} >= public - {"Family", "Response"}


def rows():
    """A table without random numbers, that R can make too: g, x and a response a family."""
    i = np.arange(160)
    X = pd.DataFrame({"g": i % 16, "x": (i * 37 % 160) / 80 - 1})
    effect, noise = np.sin(1.7 * np.arange(16))[X["g"]], np.sin(2.3 * i + 0.5)
    mean = 6 + X["x"] + 1.2 * effect
    return X, {
        "poisson": np.round(np.maximum(mean + np.sqrt(mean) * 1.4 * noise, 0)),
        "negative_binomial": np.round(np.maximum(mean * np.exp(0.8 * noise), 0)),
        "gamma": np.round(mean * np.exp(0.5 * noise), 3),
        "inverse": np.round(np.exp(0.5 * noise) / (0.5 + 0.08 * X["x"] + 0.1 * effect), 3),
    }


# glmmTMB 1.1: y ~ x + (1 | g). Coefficients and their standard errors, the SD, its sigma (of a
# negative binomial 1 / dispersion, of a gamma response 1 / sqrt(shape)), the log-likelihood.
GLMMTMB = [
    (
        families.Poisson("identity"),
        [6.07526863, 1.04327814],
        [0.260087050, 0.333387717],
        [0.688532026],
        -376.1275559,
    ),
    (
        families.Poisson("sqrt"),
        [2.457665097, 0.212271052],
        [0.0528329369, 0.0685010715],
        [0.140020968],
        -376.161323,
    ),
    (
        families.NegativeBinomial("identity"),
        [7.06415433, 1.19900284],
        [0.356699394, 0.534484410],
        [0.679310374, 5.87881884],
        -434.2512217,
    ),
    (
        families.NegativeBinomial("sqrt"),
        [2.651439728, 0.226658154],
        [0.0669098685, 0.1016436868],
        [0.127789675, 5.87710009],
        -434.2705607,
    ),
    (
        families.Gamma("identity"),
        [6.42524732, 1.06771767],
        [0.266898580, 0.305802033],
        [0.775162913, 0.356825637],
        -356.9072712,
    ),
    (
        families.Gamma("inverse"),
        [0.4662815272, 0.0766182434],
        [0.0177430757, 0.0222813084],
        [0.0463923579, 0.356146472],
        -183.4087596,
    ),
]


@pytest.mark.parametrize(("family", "coef", "std", "spread", "loglik"), GLMMTMB)
def test_laplaces_fits_are_glmmtmbs(family, coef, std, spread, loglik):
    X, answers = rows()
    y = answers["inverse" if family.link == "inverse" else family.name]
    model = MixedEffectsRegressor(["g"], fixed_effects=["x"], family=family, e_step="laplace")
    model.fit(X, y)
    assert model.converged_
    own = model.variance_components_["sd"].tolist()
    own += [1 / v for v in model.family_params_.values()]
    if family.name == "gamma":
        own[1] = np.sqrt(own[1])
    np.testing.assert_allclose(model.fixed_effects_["estimate"], coef, rtol=1e-4)
    np.testing.assert_allclose(model.fixed_effects_["std_error"], std, rtol=1e-3)
    np.testing.assert_allclose(own, spread, rtol=2e-3)
    assert model.loglik_ == pytest.approx(loglik, abs=1e-4)


@pytest.mark.parametrize("link", ["log", "identity", "inverse"])
def test_the_unit_of_a_gamma_response_is_the_users_to_choose(link):
    X, answers = rows()
    y = answers["inverse" if link == "inverse" else "gamma"]
    unit = 1e-8
    model = MixedEffectsRegressor(["g"], family=families.Gamma(link), e_step="laplace")
    one = clone(model).fit(X, y)
    other = clone(model).fit(X, unit * y)
    power = {"log": 0, "identity": 1, "inverse": -1}[link]
    assert other.result_.status is one.result_.status
    np.testing.assert_allclose(other.coef_, one.coef_ * unit**power, rtol=1e-3)
    for column in ("sd", "std_error"):
        found, expected = (m.variance_components_[column] for m in (other, one))
        np.testing.assert_allclose(found, expected * unit**power, rtol=1e-3)
    assert other.loglik_ == pytest.approx(one.loglik_ - len(y) * np.log(unit), abs=1e-3)
    np.testing.assert_allclose(other.predict(X), unit * one.predict(X), rtol=1e-3)
