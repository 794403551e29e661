"""Zero inflation, hurdles and models of the dispersion at known maxima, and their densities."""

import json
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from scipy.stats import chi2, poisson
from sklearn.exceptions import ConvergenceWarning

from sklmm import HMC, MixedEffectsRegressor, anova, families
from sklmm.engine.likelihood.likelihood import Likelihood, evaluation
from sklmm.families.modelled import ParameterModel
from sklmm.families.nominal import PartialOrdinal
from tests.two_part import DATA, reference, table

#: The family, response, fixed effects and other parts of each model.
MODELS = {
    "zip": ("poisson", "y_zip", ["x"], {"zero_inflation": "~ z"}),
    "zinb2": ("negative_binomial", "y_zinb", ["x"], {"zero_inflation": ["z"]}),
    "hurdle_poisson": ("truncated_poisson", "y_hu", ["x"], {"zero_inflation": "~ z"}),
    "nbinom2_disp": ("negative_binomial", "y_nbd", ["x", "z"], {"dispersion": "~ z"}),
}


def fit(name, e_step):
    family, y, fixed, parts = MODELS[name]
    data = table("counts")
    model = MixedEffectsRegressor(
        ["g"], fixed_effects=fixed, family=family, e_step=e_step, random_state=0, **parts
    )
    return model.fit(data, data[y])


def working(model):
    """Estimates by the names of the known maxima: sizes and shapes are 1 / dispersion."""
    tables = {"": model.fixed_effects_, "zi:": model.zero_inflation_effects_}
    out = {"log sd": np.log(model.variance_components_["sd"].iloc[0])}
    for prefix, own in tables.items():
        if own is not None:
            out |= {prefix + k: v for k, v in own["estimate"].items()}
    if model.dispersion_effects_ is not None:
        out |= {f"disp:{k}": -v for k, v in model.dispersion_effects_["estimate"].items()}
    if "dispersion" in model.family_params_:
        out["log size"] = -np.log(model.family_params_["dispersion"])
    return {name.replace("Intercept", "(Intercept)"): value for name, value in out.items()}


def away(model, known, std):
    """How far estimates are from a known maximum, in its standard errors, the largest."""
    theirs = {**known["coef"], "log sd": np.log(known["sd"])}
    if "size" in known["family"]:
        theirs["log size"] = np.log(known["family"]["size"])
    found = working(model)
    assert set(found) == set(theirs)
    return max(abs(found[name] - theirs[name]) / std[name] for name in theirs)


@pytest.mark.parametrize("e_step", ["auto", "laplace"])
@pytest.mark.parametrize("name", MODELS)
def test_fits_are_at_the_maximum(name, e_step):
    known = reference()[name]
    model, at = fit(name, e_step), known["laplace"] if e_step == "laplace" else known
    assert model.converged_
    assert away(model, at, known["se"]) < 1e-3
    assert model.loglik_ == pytest.approx(at["loglik"], abs=1e-4)
    std = model._fitted.estimates(model.result_)[1]
    names = {"x": "x", "Intercept": "(Intercept)"} | {
        f"zero: {k}": f"zi:{v}" for k, v in {"z": "z", "Intercept": "(Intercept)"}.items()
    }
    for own, theirs in names.items():
        if own in std and theirs in at["se"]:
            assert std[own] == pytest.approx(at["se"][theirs], rel=1e-3)


@pytest.mark.parametrize("name", MODELS)
def test_monte_carlo_em_is_within_its_error(name):
    known = reference()[name]
    model = fit(name, HMC(n_chains=32))
    assert away(model, known, known["se"]) < 0.1
    assert abs(model.loglik_ - known["loglik"]) < 4 * model.loglik_error_ + 0.05


GLMMTMB = json.loads((DATA / "glmmtmb.json").read_text())
#: By name the family, terms and other parts; y depends on x.
CROSSED = {
    "zip_const": ("poisson", {"zero_inflation": "~ 1"}),
    "zinb2_const": ("negative_binomial", {"zero_inflation": "~ 1"}),
    "zinb2_z": ("negative_binomial", {"zero_inflation": "~ z"}),
    "nb2_disp_z": ("negative_binomial", {"dispersion": "~ z"}),
}


@pytest.mark.parametrize("name", CROSSED)
def test_crossed_terms_are_glmmtmbs_by_laplace(name):
    family, parts = CROSSED[name]
    data, known = table("zinb"), GLMMTMB[name]
    model = MixedEffectsRegressor(
        ["g", "h"], fixed_effects=["x"], family=family, e_step="laplace", **parts
    ).fit(data, data["y"])
    found = working(model)
    std = model._fitted.estimates(model.result_)[1]
    for prefix, own in {"": known["cond"], "zi:": known["zi"], "disp:": known["disp"]}.items():
        for term, value in own.items():
            if prefix == "disp:" and "log size" in found:
                assert found["log size"] == pytest.approx(value, abs=5e-3)
            else:
                assert found[prefix + term] == pytest.approx(value, abs=5e-3)
    np.testing.assert_allclose(model.variance_components_["sd"], [*known["sd"].values()], rtol=5e-3)
    np.testing.assert_allclose(std[["Intercept", "x"]], [*known["se_cond"].values()], rtol=5e-3)
    assert model.loglik_ == pytest.approx(known["loglik"], abs=0.02)


def test_predictions_count_the_zeros_in():
    data = table("counts")
    model = fit("zip", "quadrature")
    zero = expit(model.zero_inflation_effects_["estimate"] @ [np.ones(900), data["z"]])
    given = data[["g", "x", "z"]]
    mean, std = model.predict(given, return_std=True)
    draws = model.sample_y(given, 4000, random_state=0)
    error = draws.std(axis=1) / np.sqrt(4000)
    assert np.abs((draws.mean(axis=1) - mean) / error).max() < 5
    # The draws that both are made of are the same four thousand at most.
    assert np.abs(draws.std(axis=1) / std - 1).max() < 0.15
    assert np.mean(draws == 0) == pytest.approx(np.mean(data["y_zip"] == 0), abs=0.03)
    assert (np.mean(draws == 0, axis=1) > zero - 0.05).all()


@pytest.mark.parametrize("family", ["gamma", "lognormal", "inverse_gaussian", "beta"])
def test_positive_numbers_have_a_hurdle(family):
    """Its parts share nothing, so that each is that of a fit of its own."""
    rng = np.random.default_rng(3)
    data = table("counts")[["g", "x", "z"]]
    y = np.clip(rng.beta(2, 3, 900), 1e-3, 1 - 1e-3)
    some = rng.random(900) < 0.6
    both = MixedEffectsRegressor(
        ["g"], fixed_effects=["x"], family=family, zero_inflation="~ z", method="ml"
    ).fit(data, np.where(some, y, 0.0))
    alone = MixedEffectsRegressor(["g"], fixed_effects=["x"], family=family, method="ml")
    alone.fit(data[some], y[some])
    none = MixedEffectsRegressor([], fixed_effects=["z"], family="bernoulli").fit(data, ~some)
    np.testing.assert_allclose(both.coef_, alone.coef_, rtol=1e-4)
    estimates = both.zero_inflation_effects_["estimate"]
    np.testing.assert_allclose(estimates, [none.intercept_, *none.coef_], rtol=1e-4)
    assert both.loglik_ == pytest.approx(alone.loglik_ + none.loglik_, abs=1e-3)


def of_parts(family, parts, n_classes=None, natural=()):
    """Likelihood of a family whose `parts`, {component: parameter}, are linear in two columns."""
    kinds, models = family.parameters(n_classes), []
    for component, names in parts.items():
        models += [ParameterModel.of(p, kinds[p], component, ("one", "z")) for p in names]
    return Likelihood.of(family, n_classes, tuple(models))


INFLATED = families.ZeroInflated
CASES = {
    "poisson": (INFLATED(families.Poisson()), {"zero_inflation": ["zero"]}, None),
    "poisson sqrt": (INFLATED(families.Poisson("sqrt")), {"zero_inflation": ["zero"]}, None),
    "negative binomial": (
        INFLATED(families.NegativeBinomial()),
        {"dispersion": ["dispersion"], "zero_inflation": ["zero"]},
        None,
    ),
    "nbinom1": (INFLATED(families.NegativeBinomial1()), {"zero_inflation": ["zero"]}, None),
    "hurdle": (INFLATED(families.TruncatedNegativeBinomial()), {"zero_inflation": ["zero"]}, None),
    "gamma": (families.Gamma(), {"dispersion": ["shape"]}, None),
    "gaussian": (families.Gaussian(), {"dispersion": ["sigma"]}, None),
    **{
        f"nominal {link}": (
            PartialOrdinal(link),
            {"nominal": ["shift_1", "shift_2", "shift_3"]},
            4,
        )
        for link in ("logit", "probit", "cloglog", "cauchit")
    },
}


def case(name):
    """(likelihood, its evaluation, y [n, m], eta [n, 1], raw [q])."""
    family, parts, n_classes = CASES[name]
    like = of_parts(family, parts, n_classes)
    rng = np.random.default_rng(0)
    y = np.array([0.0, 1.0, 2.0, 3.0] * 6)
    if name in ("gamma", "gaussian"):
        y = y + 0.3
    columns = [np.column_stack([0.1 * rng.normal(size=24), np.ones(24), rng.normal(size=24)])]
    wide = np.column_stack([y, *(columns * len(parts))])
    eta = rng.normal(0.4, 0.5, (24, 1))
    if name == "poisson sqrt":
        eta = 0.5 + np.abs(eta)
    raw = rng.normal(0, 0.25, len(like.names))
    return like, evaluation(like), wide, eta, raw


@pytest.mark.parametrize("name", CASES)
def test_derivatives_are_differences(name):
    _, own, y, eta, raw = case(name)
    weights, h = np.ones(24), 1e-5

    def value(eta, raw):
        return own.both(y, eta, raw[:, None])[0][:, 0]

    by_row = own.both(y, eta, raw[:, None])
    slope = (value(eta + h, raw) - value(eta - h, raw)) / (2 * h)
    np.testing.assert_allclose(by_row[1][:, 0], slope, atol=1e-7)
    np.testing.assert_allclose(own.score(y, eta, raw[:, None])[:, 0], slope, atol=1e-7)
    (observed,) = own.observed(y, eta, raw[:, None])
    steps = [own.score(y, eta + d, raw[:, None]) for d in (h, -h)]
    np.testing.assert_allclose(observed, (steps[1] - steps[0]) / (2 * h), atol=1e-5)
    *_, in_raw = own.slopes(y, weights, eta, raw[:, None])
    for i, e in enumerate(h * np.eye(len(raw))):
        change = (value(eta, raw + e) - value(eta, raw - e)).sum() / (2 * h)
        assert in_raw[i, 0] == pytest.approx(change, abs=1e-6)
    if own.second is None:
        return
    _, mixed, pairs = own.second(y, eta, raw[:, None])
    for i, e in enumerate(h * np.eye(len(raw))):
        up, down = (own.parts(y, eta, (raw + s * e)[:, None]) for s in (1, -1))
        np.testing.assert_allclose(mixed[i], (down[1] - up[1]) / (2 * h), atol=1e-5)
        for j in range(i, len(raw)):
            own_pair = pairs.get((i, j), np.zeros((24, 1)))
            change = (down[2][j] - up[2][j]) / (2 * h)
            np.testing.assert_allclose(own_pair, np.broadcast_to(change, (24, 1)), atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_tensorflow_has_the_same_density(name):
    like, own, y, eta, raw = case(name)
    value, score = like.log_prob_and_score(y, eta, raw[:, None])
    found = own.both(y, eta, raw[:, None])
    np.testing.assert_allclose(value, found[0], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(score, found[1], rtol=1e-7, atol=1e-8)


def test_density_of_a_mixture():
    _, own, y, eta, raw = case("poisson")
    rate = np.exp(eta[:, 0])
    zero = expit(y[:, 1] + y[:, 2:] @ raw)
    density = (1 - zero) * poisson.pmf(y[:, 0], rate) + zero * (y[:, 0] == 0)
    np.testing.assert_allclose(own.both(y, eta, raw[:, None])[0][:, 0], np.log(density))


@pytest.mark.parametrize("name", ["poisson", "negative binomial", "nbinom1", "hurdle"])
def test_expected_curvature_of_a_mixture_is_the_mean_squared_score(name):
    """Of nbinom1, whose own is a quasi-information, it is only positive."""
    family, parts, n_classes = CASES[name]
    like = of_parts(family, parts, n_classes)
    own, counts = evaluation(like), np.arange(400.0)
    for eta in (-1.0, 0.5, 2.0):
        columns = np.tile([0.2, 1.0, 0.4] * len(parts), (400, 1))
        y, raw = np.column_stack([counts, columns]), np.full((len(like.names), 1), -0.3)
        value, score = own.both(y, np.full((400, 1), eta), raw)
        information = (np.exp(value) * score**2).sum()
        (found,) = own.curvature(y, np.full((400, 1), eta), raw)
        if name == "nbinom1":
            assert (found > 0).all()
        else:
            np.testing.assert_allclose(found, information, rtol=1e-6)


def test_errors_name_the_part():
    data = table("counts")
    given = {"X": data[["g", "x", "z"]], "y": data["y_zip"]}

    def refused(match, **parameters):
        with pytest.raises((ValueError, TypeError), match=match):
            MixedEffectsRegressor(["g"], fixed_effects=["x"], **parameters).fit(**given)

    refused("zero_inflation is for counts and positive", zero_inflation="~ z")
    refused("no response: write '~ z'", family="poisson", zero_inflation="z")
    refused("'w' is not in X", family="poisson", zero_inflation=["w"])
    refused("has no dispersion", family="poisson", dispersion="~ z")
    refused("pins", family=families.NegativeBinomial(dispersion=1.0), dispersion="~ z")
    refused("nominal=.* is for family='ordinal'", family="poisson", nominal=["z"])
    refused("zero_inflation", family="poisson", zero_inflation=3)


def test_predict_has_the_parts():
    data = table("counts")[["g", "x", "z"]]
    model = fit("zip", "quadrature")
    zero, mean = (model.predict(data, component=c) for c in ("zero", "conditional"))
    logits = model.zero_inflation_effects_["estimate"] @ [np.ones(900), data["z"]]
    np.testing.assert_allclose(zero, expit(logits))
    np.testing.assert_allclose(model.predict(data), (1 - zero) * mean)
    size = fit("nbinom2_disp", "quadrature")
    logs = size.dispersion_effects_["estimate"] @ [np.ones(900), data["z"]]
    np.testing.assert_allclose(size.predict(data, component="dispersion"), np.exp(logs))
    np.testing.assert_allclose(size.predict(data, component="conditional"), size.predict(data))
    for match, component in {"has no zero_inflation": "zero", "not available": "mean"}.items():
        with pytest.raises(ValueError, match=match):
            size.predict(data, component=component)
    with pytest.raises(ValueError, match="has no dispersion"):
        model.predict(data, component="dispersion")
    with pytest.raises(ValueError, match="return_std"):
        model.predict(data, component="zero", return_std=True)


def test_larger_models_are_compared_by_their_likelihoods():
    data = table("counts")
    alone = MixedEffectsRegressor(["g"], fixed_effects=["x"], family="negative_binomial")
    alone.fit(data, data["y_zinb"])
    constant = MixedEffectsRegressor(
        ["g"], fixed_effects=["x"], family="negative_binomial", zero_inflation="~ 1"
    ).fit(data, data["y_zinb"])
    tests = anova(alone, constant)
    assert tests["df"].iloc[1] == 1
    # On the bound of the larger one's probability: half of a chi-squared variable's.
    assert tests["p"].iloc[1] == pytest.approx(chi2.sf(tests["chi2"].iloc[1], 1) / 2)
    assert anova(constant, fit("zinb2", "auto"))["df"].iloc[1] == 1


def test_what_has_no_variance_of_its_link_says_so():
    for name in ("zip", "nbinom2_disp"):
        with pytest.raises(ValueError, match="has a model of its own"):
            fit(name, "laplace").r2()


def test_certain_zeros_are_told():
    data = table("counts")
    y = np.where(data["z"] == 1, 0, data["y_zip"])
    model = MixedEffectsRegressor(
        ["g"], fixed_effects=["x"], family="truncated_poisson", zero_inflation="~ z"
    )
    with pytest.warns(ConvergenceWarning, match=r"zero_inflation: in \d+ rows .*'zero: z'"):
        model.fit(data, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.set_params(coef_prior={"zero: z": 2.5, "zero: Intercept": 10.0}).fit(data, y)
    assert np.isfinite(model.zero_inflation_effects_["std_error"]).all()


def test_certain_zeros_of_a_part_with_effects_are_told():
    data = table("counts")
    y = np.where(data["z"] == 1, 0, data["y_zip"])
    model = MixedEffectsRegressor(
        ["g"],
        fixed_effects=["x"],
        family="poisson",
        zero_inflation="~ z + (1 | g)",
        e_step="laplace",
    )
    with pytest.warns(ConvergenceWarning, match=r"zero_inflation: in \d+ rows .* alike in y"):
        model.fit(data, y)


@pytest.mark.parametrize("part", ["~ 1", "~ z"])
def test_mixtures_without_more_zeros_say_so(part):
    rng = np.random.default_rng(0)
    data = pd.DataFrame({"x": rng.normal(size=200), "z": np.arange(200) % 2})
    # Fewer zeros than a Poisson response has.
    y = np.maximum(rng.poisson(2.0, 200), rng.integers(0, 2, 200))
    model = MixedEffectsRegressor(None, family="poisson", zero_inflation=part, e_step="laplace")
    with pytest.warns(ConvergenceWarning, match="family='poisson' has by itself.* Leave zero_infl"):
        model.set_params(fixed_effects=["x"]).fit(data, y)


@pytest.mark.parametrize("e_step", ["auto", "laplace", HMC(backend="numpy")], ids=str)
@pytest.mark.parametrize("part", ["zero_inflation", "dispersion"])
def test_a_part_of_an_offset_alone_is_known_by_row(part, e_step):
    """Held where a part with coefficients has its maximum, the rest of the model stays there."""
    name = {"zero_inflation": "zip", "dispersion": "nbinom2_disp"}[part]
    whole, data = fit(name, "laplace" if e_step == "laplace" else "auto"), table("counts")
    gamma = getattr(whole, f"{part}_effects_")["estimate"]
    data["known"] = gamma["Intercept"] + gamma["z"] * data["z"]
    family, y, fixed, _ = MODELS[name]
    model = MixedEffectsRegressor(
        ["g"],
        fixed_effects=fixed,
        family=family,
        e_step=e_step,
        random_state=0,
        **{part: "~ 0 + offset(known)"},
    ).fit(data, data[y])
    std = np.sqrt(np.diag(whole.result_.coef_cov))
    far = np.abs(model.result_.coef - whole.result_.coef) / std
    exact = isinstance(e_step, str)
    assert far.max() < (2e-3 if exact else 0.1)
    assert model.loglik_ == pytest.approx(whole.loglik_, abs=1e-4 if exact else 0.1)
    assert model.result_.n_parameters == whole.result_.n_parameters - 2
    assert getattr(model, f"{part}_effects_") is None
    np.testing.assert_allclose(
        model.predict(data[:9]), whole.predict(data[:9]), rtol=2e-3 if exact else 0.05
    )


@pytest.mark.parametrize(
    ("family", "parts"),
    [
        ("student_t", {"dispersion": "~ 0 + offset(w)"}),
        ("negative_binomial", {"zero_inflation": "~ 0 + offset(w)"}),
        ("negative_binomial", {"zero_inflation": "~ z", "dispersion": "~ 0 + offset(w)"}),
    ],
)
def test_a_part_without_columns_before_other_parameters_is_known(family, parts):
    data = table("counts").assign(w=-0.3)
    model = MixedEffectsRegressor(
        ["g"], fixed_effects=["x"], family=family, e_step="laplace", **parts
    ).fit(data, data["y_zinb"])
    assert model.converged_
    name = "dispersion" if "dispersion" in parts else "zero"
    known = expit(-0.3) if name == "zero" else np.exp(-0.3)
    np.testing.assert_allclose(model.predict(data[:3], component=name), known)


@pytest.mark.parametrize("e_step", ["laplace", "quadrature"])
def test_a_level_without_more_zeros_has_coefficients_at_infinity(e_step):
    """Its probability goes to 0, and the information along it to rounding: that is no precision."""
    X, y = _with_a_level_without_more_zeros()
    model = _of_its_zeros(e_step)
    with pytest.warns(ConvergenceWarning, match="have no finite estimate"):
        errors = model.fit(X, y).zero_inflation_effects_["std_error"]
    # Where an optimiser stops hangs on rounding.
    assert (errors.drop("z") > 50).all()
    some = X["a"] != "p"
    alone = model.fit(X[some], y[some]).zero_inflation_effects_["std_error"]
    assert errors["z"] == pytest.approx(alone["z"], rel=0.05)


def test_all_that_is_read_off_such_a_fit_knows_what_is_at_infinity():
    """Intervals, tests and means have nothing of that level's, and what is told of the others."""
    X, y = _with_a_level_without_more_zeros()
    some, model = X["a"] != "p", _of_its_zeros("quadrature")
    at = {"x": 0.0, "z": 0.0}
    alone = model.fit(X[some], y[some])
    own = alone.marginal_means("a", X[some], at=at, component="zero").table
    with pytest.warns(ConvergenceWarning, match="have no finite estimate"):
        model.fit(X, y)
    names = ["zero: Intercept", "zero: a[T.q]", "zero: a[T.r]"]
    # One direction is at infinity, of the three.
    direction = pd.DataFrame(model.result_.unbounded, index=model._fitted.labels.names)[0]
    direction /= direction["zero: a[T.q]"]
    assert direction[names].tolist() == pytest.approx([-1, 1, 1], rel=1e-9)
    assert not direction.drop(names).any()
    assert np.isinf(model.conf_int().loc[names]).all(axis=None)
    assert np.isnan(model.linear_hypothesis("zero: Intercept").loc["L", "p"])
    found = model.linear_hypothesis("zero: a[T.q] - zero: a[T.r]").loc["L", "p"]
    assert 0 < found < 1
    for scale in ("response", "link"):
        table = model.marginal_means("a", X, at=at, component="zero", scale=scale).table
        assert table.loc["p"].isna().all()
        assert table.loc[["q", "r"]].notna().all(axis=None)
        if scale == "response":
            np.testing.assert_allclose(table.loc[["q", "r"]], own, rtol=0.05)
    # What the response is does not hang on how near to 0 the probability is.
    table = model.marginal_means("a", X, at=at).table
    assert (table["std_error"] > 0).all()
    assert table.loc["p", "estimate"] == pytest.approx(np.exp(model.intercept_), rel=0.01)


def _with_a_level_without_more_zeros():
    r, n = np.random.default_rng(1), 600
    X = pd.DataFrame({"g": np.arange(n) % 12, "a": np.array(["p", "q", "r"])[np.arange(n) % 3]})
    X = X.assign(x=r.normal(size=n), z=np.sin(np.arange(n)))
    y = r.poisson(np.exp(1.3 + 0.3 * X["x"]))
    return X, np.where(X["a"] != "p", np.where(r.random(n) < 0.3, 0, y), np.maximum(y, 1))


def _of_its_zeros(e_step):
    return MixedEffectsRegressor(
        ["g"],
        fixed_effects="~ a + x",
        family="poisson",
        zero_inflation="~ a + z",
        e_step=e_step,
    )
