"""`anova`: likelihood-ratio tests, and what cannot be compared."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from joblib import parallel_config
from scipy.stats import chi2, kstest
from sklearn.base import clone

from sklmm import (
    BetaBinomial,
    MixedEffectsClassifier,
    MixedEffectsRegressor,
    NegativeBinomial,
    Poisson,
    RandomEffect,
    anova,
)
from sklmm._fitted.nulls import Null
from sklmm.datasets import load_epil2, load_pastes
from sklmm.result import LogLikelihood
from tests.published import HERE


def fitted(sleepstudy, terms, method="ml", **parameters):
    return MixedEffectsRegressor(terms, method=method, **parameters).fit(*sleepstudy)


def test_anova_is_lme4s(sleepstudy):
    """lme4's anova of (Days | Subject) against (1 | Subject): chi2 42.139 on 2, p 7.072e-10.

    That is of chi2_2; a variance which is 0 takes half of the weight to chi2_1.
    """
    large, small = fitted(sleepstudy, ["(1 + Days | Subject)"]), fitted(sleepstudy, ["Subject"])
    table = anova(large, small)
    assert table.index.tolist() == [1, 0]
    assert table["n_parameters"].tolist() == [4, 6]
    np.testing.assert_allclose(table["loglik"], [-897.0393, -875.9697], atol=1e-3)
    assert table["chi2"].iloc[1] == pytest.approx(42.139, abs=2e-3)
    assert table["null"].tolist() == ["", "mixture"]
    mixture = (7.072e-10 + chi2.sf(42.139, 1)) / 2
    assert table["p"].iloc[1] == pytest.approx(mixture, rel=2e-3)
    assert table[["chi2", "df", "p"]].iloc[0].isna().all()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"method": "reml"}, "methods: fit all by method='ml'; they have"),
        ({"family": "student_t", "e_step": "laplace"}, "families"),
    ],
)
def test_anova_refuses_what_cannot_be_compared(sleepstudy, parameters, message):
    first = fitted(sleepstudy, ["Subject"])
    with pytest.raises(ValueError, match=message):
        anova(first, fitted(sleepstudy, ["Subject"], **parameters))


def test_anova_refuses_laplaces_likelihood_beside_an_estimate_and_another_link():
    frame = load_epil2(as_frame=True).frame
    X, y = frame[["subject", "Base"]], frame["y"]
    laplace = MixedEffectsRegressor(["subject"], family="poisson", e_step="laplace").fit(X, y)
    other = MixedEffectsRegressor(["subject"], family="poisson", random_state=0).fit(X, y)
    with pytest.raises(ValueError, match="likelihoods: fit all by the same e_step"):
        anova(laplace, other)
    glm = MixedEffectsRegressor(None, fixed_effects=["Base"], family="poisson").fit(X, y)
    assert anova(glm, other)["p"].iloc[1] < 1e-9
    root = MixedEffectsRegressor(["subject"], family=Poisson(link="sqrt"), e_step="laplace")
    with pytest.raises(ValueError, match="links"):
        anova(laplace, root.fit(X, y))


def test_anova_refuses_remls_of_different_fixed_parts_and_other_rows(sleepstudy):
    X, y = sleepstudy
    one = fitted(sleepstudy, ["Subject"], "reml")
    other = fitted(sleepstudy, ["Subject"], "reml", fixed_effects=[])
    with pytest.raises(ValueError, match="fixed parts"):
        anova(one, other)
    same = fitted(sleepstudy, ["(1 + Days | Subject)"], "reml")
    assert anova(one, same)["chi2"].iloc[1] == pytest.approx(42.84, abs=0.01)
    fewer = MixedEffectsRegressor(["Subject"]).fit(X[:100], y[:100])
    with pytest.raises(ValueError, match="numbers of observations"):
        anova(one, fewer)
    with pytest.raises(ValueError, match="at least two"):
        anova(one)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": 1.0}, "different y: fit all to one response.*; model 1's is not model 0's"),
        ({"weights": 0.5}, "different weights: "),
        ({"offset": "z"}, "different offset: "),
    ],
)
def test_anova_refuses_likelihoods_of_other_data(sleepstudy, change, message):
    X, y = sleepstudy
    X = X.assign(z=np.arange(180.0))
    weights = np.ones(180) + np.tile([-1, 1], 90) * change.get("weights", 0)
    one = MixedEffectsRegressor(["Subject"], fixed_effects=["Days"], method="ml").fit(X, y)
    other = MixedEffectsRegressor(["Subject"], fixed_effects=["Days"], method="ml")
    other.set_params(offset=change.get("offset"))
    moved = y.where(np.arange(180) != 7, y + change.get("y", 0))
    other.fit(X, moved, sample_weight=weights)
    with pytest.raises(ValueError, match=message):
        anova(one, other)


def test_anova_takes_any_order_and_weights_for_repeated_rows(sleepstudy):
    X, y = sleepstudy
    X = X.assign(zero=0.0)
    one = MixedEffectsRegressor(["Subject"], fixed_effects=["Days"], method="ml", offset="zero")
    one.fit(X, y, sample_weight=np.full(180, 2))
    twice = pd.concat([X, X[::-1]]), pd.concat([y, y[::-1]])
    other = MixedEffectsRegressor(["Subject"], fixed_effects=[], method="ml").fit(*twice)
    assert anova(one, other)["chi2"].iloc[1] > 0


def test_anova_refuses_more_parameters_with_less_likelihood(sleepstudy):
    X, y = sleepstudy
    small = MixedEffectsRegressor(["Subject"], method="ml").fit(X, y)
    large = MixedEffectsRegressor(["(1 + Days | Subject)"], method="ml")
    large.fit(X.sample(frac=1, random_state=0), y.to_numpy())
    with pytest.raises(ValueError, match=r"model 0 has more parameters than model 1 .* nested"):
        anova(large, small)


def test_poisson_is_negative_binomials_bound():
    rng = np.random.default_rng(1)
    X = pd.DataFrame({"x": rng.normal(size=200), "z": rng.normal(size=200)})
    y = rng.negative_binomial(20, 20 / (20 + np.exp(1 + 0.3 * X["x"])))
    small, wide = (
        MixedEffectsRegressor(fixed_effects=c, family="poisson").fit(X, y)
        for c in (["x"], ["x", "z"])
    )
    large, wider = (
        MixedEffectsRegressor(fixed_effects=c, family="negative_binomial").fit(X, y)
        for c in (["x"], ["x", "z"])
    )
    table = anova(large, small)
    assert table.index.tolist() == [1, 0]
    statistic = 2 * (large.loglik_ - small.loglik_)
    assert statistic > 0.5
    assert table["p"].iloc[1] == pytest.approx(chi2.sf(statistic, 1) / 2)
    statistic = 2 * (wider.loglik_ - small.loglik_)
    mixture = (chi2.sf(statistic, 1) + chi2.sf(statistic, 2)) / 2
    assert anova(small, wider)["p"].iloc[1] == pytest.approx(mixture)
    # The one with fewer parameters is not within the other.
    with pytest.raises(ValueError, match="families: "):
        anova(wide, MixedEffectsRegressor(fixed_effects=[], family="negative_binomial").fit(X, y))
    linear = MixedEffectsRegressor(fixed_effects=["x"], family="nbinom1").fit(X, y)
    assert anova(linear, small).index.tolist() == [1, 0]
    with pytest.raises(ValueError, match="families: "):
        anova(linear, wider)


#: Families of `nested.json` by glmmTMB's names, and models of their zeros.
NESTED = {
    "zip": ("poisson", "~ 1"),
    "zipx": ("poisson", "~ x"),
    "nb": ("negative_binomial", None),
    "zinb": ("negative_binomial", "~ 1"),
    "zinb1": ("nbinom1", "~ 1"),
    "zinbx": ("negative_binomial", "~ x"),
    "hurdle_poisson": ("truncated_poisson", "~ 1"),
    "hurdle_nb": ("truncated_negative_binomial", "~ 1"),
    "binomial": ("binomial", None),
    "betabinomial": ("beta_binomial", None),
}


def nested_case(name, terms=("g",)):
    """A model of `nested.json`, X and y."""
    table = pd.DataFrame(json.loads((HERE / "data" / "nested.json").read_text())["rows"])
    family, zeros = NESTED.get(name, (name, None))
    model = MixedEffectsRegressor(
        list(terms), fixed_effects=["x"], family=family, zero_inflation=zeros, e_step="laplace"
    )
    y = table[["s", "f"]] if name in ("binomial", "betabinomial") else table["y"]
    return model, table[["g", "x"]], y


@pytest.mark.parametrize("pair", range(6))
def test_families_within_one_another_are_glmmtmbs(pair):
    """Its ratios by Laplace's approximation; its p, of chi2_1, is twice the mixture's."""
    known = json.loads((HERE / "data" / "nested.json").read_text())
    test, models = known["anova"][pair], []
    for name in (test["large"], test["small"]):
        model, X, y = nested_case(name)
        models.append(model.fit(X, y))
        assert models[-1].loglik_ == pytest.approx(known["loglik"][name], abs=1e-4)
    row = anova(*models).iloc[1]
    assert row["chi2"] == pytest.approx(test["chi2"], abs=2e-4)
    assert (row["df"], row["null"]) == (test["df"], "mixture")
    assert row["p"] == pytest.approx(test["p"] / 2, rel=1e-3)


def test_families_are_compared_only_within_one_another():
    """Zeros and a dispersion at once are unclear; a pinned dispersion has no end."""
    models = {}
    for name in ("poisson", "zip", "nb", "zinb", "hurdle_nb"):
        model, X, y = nested_case(name, terms=())
        models[name] = model.fit(X, y)
    assert (
        anova(*(models[k] for k in ("poisson", "nb", "zinb")))["null"].iloc[1:].eq("mixture").all()
    )
    assert anova(models["poisson"], models["zinb"])["null"].iloc[1] == "unclear"
    model, X, y = nested_case("poisson", terms=())
    pinned = model.set_params(family=NegativeBinomial(dispersion=0.5), zero_inflation="~ 1").fit(
        X, y
    )
    for other in (("poisson", pinned), ("zip", models["nb"]), ("zip", models["hurdle_nb"])):
        with pytest.raises(ValueError, match="families: likelihoods of different families are not"):
            anova(models[other[0]], other[1])


def test_families_of_as_many_parameters_are_compared_in_any_order():
    X, y = load_epil2(return_X_y=True, as_frame=True)
    effects, dispersion = (
        MixedEffectsRegressor(terms, fixed_effects=["Age"], family=family).fit(X, y)
        for terms, family in ((["subject"], "poisson"), ([], "negative_binomial"))
    )
    table, other = anova(effects, dispersion), anova(dispersion, effects)
    assert table["df"].iloc[1] == other["df"].iloc[1] == 0
    assert np.isnan([table["p"].iloc[1], other["p"].iloc[1]]).all()


def test_trials_are_the_same_as_counts_and_as_weights():
    """A binomial's shares have them as weights, a beta-binomial's beside y; others are others."""
    model, X, y = nested_case("binomial", terms=())
    trials = y.sum(axis=1).to_numpy()
    shares = y["s"].to_numpy() / trials
    large = BetaBinomial()
    fits = [
        clone(model).set_params(family=family).fit(X, *data)
        for family in ("binomial", large)
        for data in ((y,), (shares, trials))
    ]
    tables = [anova(small, large) for small in fits[:2] for large in fits[2:]]
    for table in tables[1:]:
        np.testing.assert_allclose(table["chi2"], tables[0]["chi2"], atol=1e-5)
    more = y + [[0, 1]] * (np.arange(len(y)) == 3)[:, None]
    with pytest.raises(ValueError, match="different y"):
        anova(fits[0], clone(model).set_params(family=large).fit(X, more))


@pytest.mark.parametrize(("small", "large"), [("zip", "zinb"), ("binomial", "betabinomial")])
def test_families_are_compared_by_the_bootstrap(small, large):
    """Of data with a dispersion no ratio drawn without is as large."""
    fits = []
    for name in (small, large):
        model, X, y = nested_case(name)
        fits.append(model.fit(X, y))
    row = anova(*fits, n_boot=19, X=X, y=y, random_state=0).iloc[1]
    assert (row["null"], row["n_boot"], row["p"]) == ("bootstrap", 19, 0.05)


@pytest.mark.slow
@pytest.mark.parametrize(("small", "large"), [("zip", "zinb"), ("binomial", "betabinomial")])
def test_the_mixture_is_that_of_simulated_families(small, large):
    """100 sets of the smaller family: half of the ratios are 0, others chi2_1, within 3 errors.

    A little more than half: the estimate of what is at its end has a bias.
    """
    ratios = []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        X = pd.DataFrame({"x": rng.normal(size=250)})
        y = rng.poisson(np.exp(1.2 + 0.3 * X["x"])) * (rng.random(250) < 0.7)
        if small == "binomial":
            successes = rng.binomial(12, 1 / (1 + np.exp(-0.3 * X["x"])))
            y = np.column_stack([successes, 12 - successes])
        fits = []
        for family, zeros in (NESTED[small], NESTED[large]):
            model = MixedEffectsRegressor(fixed_effects=["x"], family=family, zero_inflation=zeros)
            fits.append(model.fit(X, y))
        ratios.append(anova(*fits)["chi2"].iloc[1])
    some = np.array([ratio for ratio in ratios if ratio > 1e-3])
    assert abs(len(some) / 100 - 0.45) < 3 * np.sqrt(0.5 * 0.5 / 100), len(some)
    assert kstest(some, chi2(1).cdf).pvalue > 1e-3


def test_perfect_fits_have_no_likelihood_ratio(sleepstudy):
    X, _ = sleepstudy
    with pytest.warns(UserWarning, match="alone reproduce y"):
        models = [MixedEffectsRegressor(t, method="ml").fit(X, 2 * X["Days"]) for t in ([], None)]
    with pytest.raises(ValueError, match="models: model 0 is a perfect fit"):
        anova(*models)


def test_a_chi2_of_next_to_nothing_is_no_0_but_for_a_bound():
    one, half = Null("chi2", 1), Null("mixture", 0, (0.5, 0.5))
    assert one.sf(5e-4, 1e-3) == pytest.approx(chi2.sf(5e-4, 1))
    assert half.sf(5e-4, 1e-3) == pytest.approx(0.5 + chi2.sf(5e-4, 1) / 2)
    assert half.sf(2e-3, 1e-3) == pytest.approx(chi2.sf(2e-3, 1) / 2)


def test_normal_models_have_one_likelihood_by_any_step_in_any_order():
    X, y = small_table()
    own = {"fixed_effects": ["x"], "method": "ml"}
    fits = [
        MixedEffectsRegressor(["g"], **own).fit(X, y),
        MixedEffectsRegressor(["g"], dispersion="~ z", **own).fit(X, y),
        MixedEffectsRegressor(["g"], dispersion="~ z + (1 | h)", e_step="laplace", **own).fit(X, y),
    ]
    table = anova(*fits)
    assert table["null"].tolist() == ["", "chi2", "mixture"]
    pd.testing.assert_frame_equal(anova(*fits[::-1]).set_axis(table.index), table)


def small_table():
    """30 groups crossed with 12 places; a category of times, and counts."""
    rng = np.random.default_rng(5)
    X = pd.DataFrame({"g": np.arange(240) // 8, "h": np.arange(240) % 12})
    X["x"], X["z"], X["t"] = np.arange(240) % 8 / 4 - 1, rng.normal(size=240), np.arange(240) % 8
    X["f"] = pd.Categorical(np.arange(240) % 3)
    y = 1 + rng.normal(size=30)[X["g"]] + 0.4 * rng.normal(size=12)[X["h"]] + rng.normal(size=240)
    return X, y


HALF, CONE = [0.5, 0.5], [0.1464466, 0.3535534, 0.3535534, 0.1464466]
#: Terms of a smaller and of a larger model; degrees of freedom and weights of the mixture.
NULLS = {
    "an intercept": ([], ["g"], 0, HALF),
    "a slope, correlated": (["g"], ["(1 + x | g)"], 1, HALF),
    "a slope, apart": (["g"], ["(1 + x || g)"], 0, HALF),
    "the same as terms": (["g"], ["g", "(0 + x | g)"], 0, HALF),
    "a correlation": (["(1 + x || g)"], ["(1 + x | g)"], 1, [1.0]),
    "a second slope": (["(1 + x | g)"], ["(1 + x + z | g)"], 2, HALF),
    "two slopes": (["g"], ["(1 + x + z | g)"], 2, CONE),
    "intercept and slope": ([], ["(1 + x | g)"], 0, CONE),
    "a crossed term": (["g"], ["g", "h"], 0, HALF),
    "a nested one": (["g"], ["(1 | g/f)"], 0, HALF),
    "two crossed terms": ([], ["g", "h"], 0, [0.25, 0.5, 0.25]),
    "of two factors each": (["g", "h"], ["(1 + x | g)", "(1 + x || h)"], 1, [0.25, 0.5, 0.25]),
    "one SD of many": ([], ["diag(0 + f | g, hom=TRUE)"], 0, HALF),
    "categories' covariance": (["cs(0 + f | g)"], ["(0 + f | g)"], 2, [1.0]),
    "an autoregression": (["diag(0 + f | g, hom=TRUE)"], ["ar1(0 + f | g)"], 1, [1.0]),
    "a pinned SD": ([RandomEffect("g", sd=1.0)], ["g"], 1, [1.0]),
}


@pytest.mark.parametrize("name", NULLS)
def test_variances_that_are_0_have_mixtures(name):
    X, y = small_table()
    small, large, df, weights = NULLS[name]
    small, large = (
        MixedEffectsRegressor(terms, fixed_effects=["x"], method="ml").fit(X, y)
        for terms in (small, large)
    )
    row = anova(small, large).iloc[1]
    assert row["null"] == ("mixture" if len(weights) > 1 else "chi2")
    assert row["df"] == df + len(weights) - 1
    statistic = 2 * (large.loglik_ - small.loglik_)
    chances = [chi2.sf(statistic, df + k) if df + k else 0.0 for k in range(len(weights))]
    expected = np.dot(weights, chances) if statistic > 1e-3 else 1.0
    assert row["p"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("small", "large"),
    [
        (["h"], ["(1 + x | g)"]),
        ([], ["ar1(0 + t | g)"]),
        ([], ["(1 + x + z | g)"]),
        (["g"], ["(0 + f | g)"]),
    ],
)
def test_what_is_not_known_has_chi2s_p(small, large):
    """No term of the smaller model, a correlation of no effects, or a cone without volumes."""
    X, y = small_table()
    y = y + 3 * X["x"] * np.random.default_rng(0).normal(size=30)[X["g"]]
    models = [
        MixedEffectsRegressor(terms, fixed_effects=["x"], method="ml").fit(X, y)
        for terms in (small, large)
    ]
    row = anova(*models).iloc[1]
    assert row["null"] == "unclear"
    assert row["p"] == pytest.approx(chi2.sf(row["chi2"], row["df"]))


def test_fixed_effects_beside_a_variance_add_their_degrees():
    X, y = small_table()
    small = MixedEffectsRegressor(["g"], fixed_effects=[], method="ml").fit(X, y)
    large = MixedEffectsRegressor(["(1 + x | g)"], fixed_effects=["x", "z"], method="ml").fit(X, y)
    row = anova(small, large).iloc[1]
    mixture = (chi2.sf(row["chi2"], 3) + chi2.sf(row["chi2"], 4)) / 2
    assert (row["df"], row["null"]) == (4, "mixture")
    assert row["p"] == pytest.approx(mixture)
    # No variance: chi2.
    large = MixedEffectsRegressor(["g"], fixed_effects=["z"], method="ml").fit(X, y)
    row = anova(small, large).iloc[1]
    assert (row["null"], row["p"]) == ("chi2", pytest.approx(chi2.sf(row["chi2"], 1)))


def test_parts_have_bounds_of_their_own():
    """A zero probability of 0 is one, and columns of it say nothing there; classes have terms."""
    rng = np.random.default_rng(3)
    X, _ = small_table()
    y = rng.poisson(np.exp(0.5 + 0.4 * rng.normal(size=30)[X["g"]])) * (rng.random(240) < 0.7)
    own = {"fixed_effects": [], "family": "poisson", "e_step": "laplace"}
    zeros = (None, "~ 1", "~ z", "~ 1 + (1 | g)")
    fits = [MixedEffectsRegressor(["g"], zero_inflation=z, **own).fit(X, y) for z in zeros]
    assert anova(*fits[:2])["null"].iloc[1] == "mixture"
    assert anova(fits[0], fits[2])["null"].iloc[1] == "unclear"
    assert anova(*fits[1:3])["null"].iloc[1] == "chi2"
    row = anova(fits[1], fits[3]).iloc[1]
    assert (row["df"], row["null"]) == (1, "mixture")
    classes = np.array(["a", "b", "c"])[np.minimum(y, 2)]
    small, large = (
        MixedEffectsClassifier(terms, fixed_effects=["z"], e_step="quadrature").fit(X, classes)
        for terms in (None, ["g"])
    )
    row = anova(small, large).iloc[1]
    # Two predictors have a variance each.
    expected = 0.5 * chi2.sf(row["chi2"], 1) + 0.25 * chi2.sf(row["chi2"], 2)
    assert (row["df"], row["p"]) == (2, pytest.approx(expected))


#: chi2, and p by R 4.2.2, lme4 1.1-31 and pbkrtest 0.5.2, models by ML of some days of sleepstudy
#: and of Pastes; over all data sets, where PBmodcomp leaves out those of a ratio not above 0:
#:
#:     set.seed(1); r <- PBmodcomp(large, small, nsim = 2000)
#:     (1 + r$n.extreme) / (1 + r$samples["nsim"])
BOOTSTRAP = {"square": (1.6577, 0.2069), "slope": (0.6168, 0.4483), "pastes": (0.4072, 0.2039)}


@pytest.mark.parametrize("name", BOOTSTRAP)
def test_the_bootstrap_is_pbkrtests(name, sleepstudy):
    """Within 4 Monte Carlo errors of a difference."""
    (X, y), days = sleepstudy, slice(4, 7) if name == "slope" else slice(0, 9)
    some = X["Days"].between(days.start, days.stop)
    X, y = X[some].assign(square=X["Days"] ** 2), y[some]
    terms = ["(1 + Days | Subject)"]
    if name == "pastes":
        X, y = load_pastes(return_X_y=True, as_frame=True)
        formulas = [(["(1 | batch:cask)"], []), (["(1 | batch/cask)"], [])]
    elif name == "slope":
        formulas = [(["Subject"], ["Days"]), (terms, ["Days"])]
    else:
        formulas = [(terms, ["Days"]), (terms, ["Days", "square"])]
    models = [
        MixedEffectsRegressor(own, fixed_effects=fixed, method="ml").fit(X, y)
        for own, fixed in formulas
    ]
    statistic, expected = BOOTSTRAP[name]
    assert anova(*models)["chi2"].iloc[1] == pytest.approx(statistic, abs=2e-3)
    row = anova(*models, n_boot=100, X=X, y=y, random_state=0).iloc[1]
    assert (row["null"], row["n_boot"]) == ("bootstrap", 100)
    error = np.sqrt(expected * (1 - expected) * (1 / 100 + 1 / 2000))
    assert row["p"] == pytest.approx(expected, abs=4 * error)


def test_the_bootstrap_is_reproducible_for_any_family():
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"g": np.arange(150) % 10, "x": rng.normal(size=150)})
    y = rng.poisson(np.exp(0.3 + 0.2 * rng.normal(size=10)[X["g"]]))
    fits = [
        MixedEffectsRegressor(terms, fixed_effects=["x"], family=family, e_step="laplace").fit(X, y)
        for terms, family in ((None, "poisson"), (["g"], "poisson"), (["g"], "negative_binomial"))
    ]
    options = {"X": X, "y": y, "n_boot": 8, "random_state": 0}
    one = anova(*fits, **options)
    # Threads, as processes take seconds to begin.
    with parallel_config("threading"):
        other = anova(*fits[::-1], **options, n_jobs=2)
    pd.testing.assert_frame_equal(one, other.set_axis(one.index))
    assert one["n_boot"].iloc[1:].between(6, 8).all()
    assert one["p"].iloc[1:].between(1 / 9, 1).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_boot": 9}, r"n_boot needs the rows of the fits"),
        ({"n_boot": 0, "rows": 180}, r"n_boot=0 must be a whole number of at least 1"),
        ({"n_boot": 9.0, "rows": 180}, r"n_boot=9.0 must be a whole number"),
        ({"n_boot": 9, "rows": 100}, r"X: it must hold the rows of the fit, 180"),
    ],
)
def test_what_the_bootstrap_refuses(sleepstudy, options, message):
    X, y = sleepstudy
    options = dict(options)
    if rows := options.pop("rows", None):
        options |= {"X": X[:rows], "y": y[:rows]}
    small, large = fitted(sleepstudy, ["Subject"]), fitted(sleepstudy, ["(1 + Days | Subject)"])
    with pytest.raises(ValueError, match=message):
        anova(small, large, **options)


def test_the_bootstrap_refuses_monte_carlo_likelihoods():
    X, _ = small_table()
    y = np.random.default_rng(0).poisson(2.0, len(X)) * (1 + X["h"])
    own = {"family": "poisson", "fixed_effects": [], "random_state": 0, "tol": 0.3}
    fits = [MixedEffectsRegressor(terms, **own).fit(X, y) for terms in (["h"], ["g", "h"])]
    with pytest.raises(ValueError, match="Monte Carlo error that hides differences"):
        anova(*fits, n_boot=9, X=X, y=y)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "terms"), [([], ["g"]), (["g"], ["(1 + x | g)"]), ([], ["(1 + x | g)"])]
)
def test_the_mixture_is_that_of_simulated_sets(before, terms):
    """200 sets of 60 groups: chi2's p is below .2 in half as many as it should, or fewer."""
    p, plain = [], []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        X = pd.DataFrame({"g": np.arange(360) // 6, "x": np.arange(360) % 6 / 3 - 1})
        y = 1 + 0.5 * X["x"] + rng.normal(size=360)
        y += rng.normal(size=60)[X["g"]] if before else 0.0
        models = [
            MixedEffectsRegressor(own, fixed_effects=["x"], method="ml").fit(X, y)
            for own in (before, terms)
        ]
        row = anova(*models).iloc[1]
        p.append(row["p"])
        plain.append(chi2.sf(max(row["chi2"], 0), row["df"]))
    assert 0.1 <= np.mean(np.array(p) <= 0.2) <= 0.28
    assert np.mean(np.array(plain) <= 0.2) < 0.14
    assert np.mean(np.array(p) <= 0.2) > np.mean(np.array(plain) <= 0.2) + 0.03


def test_a_model_without_a_likelihood_is_told(sleepstudy):
    one, other = fitted(sleepstudy, ["Subject"]), fitted(sleepstudy, ["(1 + Days | Subject)"])
    # As it is beside sparse columns.
    other.result_ = replace(other.result_, likelihood=LogLikelihood())
    with pytest.raises(ValueError, match=r"model 1 \(random effects 'Subject'\) has no log-lik"):
        anova(one, other)
    assert "No log-likelihood, AIC and BIC: " in other.summary()
