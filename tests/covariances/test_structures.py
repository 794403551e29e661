"""Structured covariances beside glmmTMB and nlme, beside models that are the same, and at work."""

import json
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import multivariate_normal
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

from sklmm import (
    AR1,
    CompoundSymmetry,
    Diagonal,
    Gaussian,
    MixedEffectsClassifier,
    MixedEffectsRegressor,
    RandomEffect,
    Toeplitz,
)
from sklmm.design.terms import parse_term

DATA = Path(__file__).parents[1] / "data"
TERMS = {
    "us": "us(0 + ft | id)",
    "diag": "diag(0 + ft | id)",
    "diag, hom": "diag(0 + ft | id, hom=TRUE)",
    "cs": "cs(0 + ft | id)",
    "cs, hom": "cs(0 + ft | id, hom=TRUE)",
    "ar1": "ar1(0 + ft | id)",
    "ar1, times": "ar1(0 + t | id)",
    "ar1, het": "ar1(0 + ft | id, hom=FALSE)",
    "toep": "toep(0 + ft | id)",
    "toep, hom": "toep(0 + t | id, hom=TRUE)",
}
TIMES = np.array([0, 0.3, 1, 1.5, 2.7, 4, 4.4, 7])


@pytest.fixture(scope="module")
def answers():
    return json.loads((DATA / "structures.json").read_text())


def read(name):
    table = pd.read_csv(DATA / f"{name}.csv")
    return table.assign(ft=pd.Categorical(table["t"]), u=TIMES[table["t"] - 1])


@pytest.fixture(scope="module")
def table():
    return read("longitudinal")


@pytest.fixture(scope="module")
def counts():
    return read("longitudinal_counts")


@pytest.fixture(scope="module")
def one(table):
    """The first row of each visit, without the fourth."""
    return table[table["t"] != 4].drop_duplicates(["id", "t"])


def fit(formula, table, **parameters):
    return MixedEffectsRegressor.from_formula(formula, **parameters).fit(table)


def spread(model, group="id"):
    """SDs of a term's coefficients, and their correlations."""
    cov = model.cov_re_[group].to_numpy()
    sds = np.sqrt(np.diag(cov))
    return sds, cov / np.outer(sds, sds)


@pytest.mark.parametrize("method", ["reml", "ml"])
@pytest.mark.parametrize(
    ("name", "term"),
    [
        ("ar1", TERMS["ar1"]),
        ("ar1", TERMS["ar1, times"]),
        ("hetcs", TERMS["cs"]),
        ("diag", TERMS["diag"]),
        ("us", TERMS["us"]),
        ("toep", TERMS["toep"]),
    ],
)
@pytest.mark.parametrize("e_step", ["exact", "cg"])
def test_models_are_those_of_glmmtmb(table, answers, name, term, method, e_step):
    answer = answers[f"long_{name}_{method}"]
    model = fit(f"y ~ x + {term} + (1 | site)", table, method=method, e_step=e_step, random_state=0)
    assert model.converged_
    sds, corr = spread(model)
    np.testing.assert_allclose(sds, answer["sd"], rtol=1e-3)
    assert corr[1, 0] == pytest.approx(answer["corr"], abs=1e-3)
    last = model.variance_components_["sd"].to_numpy()[-2:]
    np.testing.assert_allclose(last, [answer["site"], answer["sigma"]], rtol=1e-3)
    np.testing.assert_allclose(model.fixed_effects_["estimate"], answer["coef"], rtol=1e-3)
    assert model.loglik_ == pytest.approx(answer["logLik"], abs=1e-3)


@pytest.mark.parametrize("method", ["reml", "ml"])
def test_diag_of_numbers_is_that_of_glmmtmb(sleepstudy, answers, method):
    answer = answers[f"sleep_diag_{method}"]
    X, y = sleepstudy
    model = MixedEffectsRegressor(["diag(1 + Days | Subject)"], method=method).fit(X, y)
    np.testing.assert_allclose(spread(model, "Subject")[0], answer["sd"], rtol=1e-3)
    np.testing.assert_allclose(model.fixed_effects_["std_error"], answer["se"], rtol=1e-3)
    assert model.loglik_ == pytest.approx(answer["logLik"], abs=1e-3)
    assert model.aic_ == pytest.approx(-2 * answer["logLik"] + 10, abs=1e-2)


def test_ar1_of_counts_is_that_of_glmmtmb(counts, answers):
    answer = answers["long_counts_ar1"]
    model = fit(f"c ~ x + {TERMS['ar1']}", counts, family="poisson", e_step="laplace", method="ml")
    sds, corr = spread(model)
    np.testing.assert_allclose(sds, answer["sd"], rtol=5e-3)
    assert corr[1, 0] == pytest.approx(answer["corr"], rel=5e-3)
    np.testing.assert_allclose(model.fixed_effects_["estimate"], answer["coef"], rtol=5e-3)
    assert model.loglik_ == pytest.approx(answer["logLik"], abs=0.02)


@pytest.mark.parametrize("method", ["reml", "ml"])
@pytest.mark.parametrize(
    ("name", "term"),
    [
        ("gap_ar1", "ar1(0 + t | id)"),
        ("gap_ar1", "ar1(0 + ft | id)"),
        ("unequal_car1", "ar1(0 + u | id)"),
        ("homcs", "cs(0 + ft | id, hom=TRUE)"),
    ],
)
def test_gaps_and_unequal_times_are_those_of_nlme(one, answers, name, term, method):
    """nlme's residuals are our effects with hardly a residual; ft has a category without rows."""
    answer = answers[f"{name}_{method}"]
    model = fit(f"y ~ x + {term}", one, method=method, family=Gaussian(sigma=1e-3))
    sds, corr = model.variance_components_["sd"][0], model.variance_components_["corr"][1]
    assert sds == pytest.approx(answer["sd"], rel=1e-3)
    # Theirs is over one unit of time, and ours over a tenth of the times' range.
    distance = 0.7 if term == "ar1(0 + u | id)" else 1
    assert corr == pytest.approx(answer["phi"] ** distance, abs=1e-3)
    np.testing.assert_allclose(model.fixed_effects_["estimate"], answer["coef"], rtol=1e-3)
    assert model.loglik_ == pytest.approx(answer["logLik"], abs=1e-3)
    assert model.result_.n_parameters == 4


@pytest.mark.parametrize("method", ["reml", "ml"])
def test_unequal_times_are_glmmtmbs_ou(table, answers, method):
    answer = answers[f"unequal_ou_{method}"]
    model = fit("y ~ x + ar1(0 + u | id) + (1 | site)", table, method=method)
    shown = model.variance_components_.set_index("name")
    assert shown.loc["u", "sd"] == pytest.approx(answer["sd"], rel=1e-3)
    assert shown.loc["u: phi (0.7 apart)", "corr"] == pytest.approx(answer["phi"] ** 0.7, abs=1e-3)
    assert model.loglik_ == pytest.approx(answer["logLik"], abs=1e-3)


@pytest.mark.parametrize("e_step", ["exact", "cg", "laplace"])
def test_homogeneous_structures_are_terms_of_interactions(table, counts, e_step):
    """Of one variance diag is a term g:f, and cs that one beside g."""
    data, start = (table, "y ~ x +") if e_step != "laplace" else (counts, "c ~ x +")
    family = "poisson" if e_step == "laplace" else "gaussian"
    options = {"family": family, "e_step": e_step, "tol": 1e-6, "random_state": 0}
    diag, alone = (
        fit(f"{start} {term}", data, **options) for term in (TERMS["diag, hom"], "(1 | id:t)")
    )
    assert diag.loglik_ == pytest.approx(alone.loglik_, abs=1e-5)
    assert diag.variance_components_["name"][0] == "ft"
    # Laplace's approximation learns a part of the information from its steps.
    np.testing.assert_allclose(
        diag.variance_components_["std_error"],
        alone.variance_components_["std_error"],
        rtol=1e-2 if e_step == "laplace" else 1e-3,
    )
    cs, nested = (
        fit(f"{start} {term}", data, **options) for term in (TERMS["cs, hom"], "(1 | id/t)")
    )
    assert cs.loglik_ == pytest.approx(nested.loglik_, abs=1e-5)
    between, within = nested.variance_components_["sd"][:2] ** 2
    assert cs.variance_components_["sd"][0] ** 2 == pytest.approx(between + within, rel=1e-4)
    share = between / (between + within)
    assert cs.variance_components_["corr"][1] == pytest.approx(share, rel=1e-3)
    assert cs.variance_components_["name"][1] == "ft: any two"


def test_a_term_is_read_and_printed_as_it_is_written():
    for text in TERMS.values():
        term, *_ = parse_term(text)
        assert str(term) == text
        assert parse_term(str(term)) == [term]
    assert parse_term("cs(0+f|a/b)") == [
        RandomEffect("a", ["f"], False, covariance="cs"),
        RandomEffect(("a", "b"), ["f"], False, covariance=CompoundSymmetry()),
    ]
    assert parse_term("diag(x | g, hom = TRUE)")[0].covariance == Diagonal(homogeneous=True)
    assert parse_term("ar1(0 + t | g, hom=FALSE)")[0].covariance == AR1(heterogeneous=True)


@pytest.mark.parametrize(
    ("term", "says"),
    [
        ("arma(0 + t | g)", "'arma' is no covariance: there are us, diag, cs, ar1, toep"),
        ("cs(0 + t || g)", "is a covariance itself"),
        ("us(0 + t | g, hom=TRUE)", "hom=TRUE of us"),
        ("cs(0 + t | g, hom=maybe)", "TRUE or FALSE"),
        ("(0 + t | g, hom=TRUE)", "hom is of a structure"),
    ],
)
def test_a_term_that_cannot_be_read_says_why(term, says):
    with pytest.raises(ValueError, match=says):
        parse_term(term)


@pytest.mark.parametrize(
    ("term", "says"),
    [
        ("ar1(1 + t | id)", r"no intercept: write ar1\(0 \+ time \| id\)"),
        ("toep(0 + u | id)", "none between 4.4 and 7"),
        ("cs(0 + t | id)", "1 coefficient a level.*categorical"),
        ("ar1(0 + word | id)", "labels of the slope column 'word', like 'a.', have none"),
        ("ar1(0 + x | id)", "'x' are more than 500.*round them"),
    ],
)
def test_columns_that_have_no_such_covariance_are_refused(table, term, says):
    table = table.assign(word="a" + table["t"].astype(str))
    with pytest.raises(ValueError, match=says):
        fit(f"y ~ {term}", table)


@pytest.mark.parametrize("term", TERMS.values(), ids=TERMS)
def test_a_structure_works_wherever_a_term_does(table, term):
    formula = f"y ~ x + {term} + (1 | site)"
    model = fit(formula, table)
    shown = model.variance_components_
    assert (shown["std_error"] > 0).all()
    assert model.result_.n_parameters == 2 + len(shown)
    assert f"{term} + (1 | site)" in model.summary()
    names = [*model.fixed_effects_.index, *shown["name"][:-1], "sigma"]
    assert all(name in column for name, column in zip(names, model.conf_int().index, strict=True))
    assert set(model.conf_int().index) <= set(model.history_)
    again = pickle.loads(pickle.dumps(model))
    some = table[::9].assign(id=np.r_[table["id"][:9:9], 999 - np.arange(90)])
    np.testing.assert_array_equal(
        again.predict(some, return_std=True), model.predict(some, return_std=True)
    )
    assert np.isfinite(model.sample_y(some, n_samples=3, random_state=0)).all()
    warm = clone(model).set_params(warm_start=True).fit(table)
    assert warm.fit(table).n_iter_ <= 2
    batches = [(table[:400], None), (table[400:], None)]
    assert clone(model).fit_batches(batches).loglik_ == pytest.approx(model.loglik_, abs=1e-6)
    assert np.isfinite(clone(model).fit(table).update(table[:40]).predict(table)).all()


def test_columns_by_position_and_tables_of_others(table):
    model = fit("y ~ x + ar1(0 + t | id) + (1 | site)", table)
    array = table[["id", "t", "x", "site"]].to_numpy()
    term = RandomEffect(0, slopes=[1], intercept=False, covariance=AR1())
    by_position = MixedEffectsRegressor([term, 3], fixed_effects=[2]).fit(array, table["y"])
    assert by_position.loglik_ == pytest.approx(model.loglik_, abs=1e-8)
    assert by_position.variance_components_["name"][1] == "1: phi (1 apart)"
    np.testing.assert_allclose(by_position.predict(array[:5]), model.predict(table[:5]), atol=1e-8)
    share = model.icc()
    assert 0 < share["site"] < share["id"] < 1


def test_a_covariance_of_too_many_parameters_is_refused(table):
    many = table.assign(f=pd.Categorical(np.arange(len(table)) % 250))
    with pytest.raises(ValueError, match=r"250 coefficients a level and 499 parameters.*ar1"):
        fit("y ~ toep(0 + f | id)", many)


@pytest.mark.slow
def test_each_class_has_a_covariance_of_its_own(table):
    few = table[table["t"] < 4]
    classes = pd.cut(few["y"], [-99, 1, 3, 99], labels=["a", "b", "c"]).astype(str)
    term = RandomEffect("id", slopes=["t"], intercept=False, covariance="ar1")
    model = MixedEffectsClassifier(
        [term], fixed_effects=["x"], family="categorical", random_state=0, max_iter=150
    ).fit(few[["id", "t", "x"]], classes)
    names = [f"{c}: t{what}" for c in "bc" for what in ("", ": phi (1 apart)")]
    assert model.variance_components_["name"].tolist() == names


def test_a_grid_of_covariances(table):
    X, y = table.drop(columns="y"), table["y"]
    grid = [
        [RandomEffect("id", ["t"], False, covariance=own)]
        for own in ("ar1", Toeplitz(heterogeneous=False))
    ]
    search = GridSearchCV(
        MixedEffectsRegressor(fixed_effects=["x"]), {"random_effects": grid}, cv=3, n_jobs=2
    ).fit(X, y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


@pytest.mark.parametrize("term", TERMS.values(), ids=TERMS)
def test_laplace_quadrature_and_their_intervals_agree(counts, term):
    """Quadrature is Laplace's to a few hundredths of a standard error at such counts."""
    few = counts[counts["t"] <= 3]
    few = few.assign(ft=few["ft"].cat.remove_unused_categories())
    options = {"family": "poisson", "method": "ml"}
    laplace, quadrature = (
        fit(f"c ~ x + {term}", few, e_step=e_step, **options)
        for e_step in ("laplace", "quadrature")
    )
    for model in (laplace, quadrature):
        assert model.converged_
    a, b = (m.variance_components_[["sd", "corr"]].sum(axis=1) for m in (laplace, quadrature))
    assert (np.abs(a - b) < 0.15 * quadrature.variance_components_["std_error"]).all()


@pytest.mark.slow
@pytest.mark.parametrize("term", TERMS.values(), ids=TERMS)
def test_monte_carlo_em_is_quadrature(counts, term):
    few = counts[counts["t"] <= 3]
    few = few.assign(ft=few["ft"].cat.remove_unused_categories())
    options = {"family": "poisson", "method": "ml", "random_state": 0}
    ours, theirs = (
        fit(f"c ~ x + {term}", few, e_step=e_step, **options) for e_step in ("hmc", "quadrature")
    )
    assert ours.converged_
    a, b = (m.variance_components_[["sd", "corr"]].sum(axis=1) for m in (ours, theirs))
    std = theirs.variance_components_["std_error"]
    assert (np.abs(a - b) < 0.15 * std).all()
    np.testing.assert_allclose(ours.variance_components_["std_error"], std, rtol=0.1)


def test_the_likelihood_after_monte_carlo_em_is_that_of_dense_matrices():
    """Of balanced Gaussian data, whose levels have equal blocks, which chains take as arrays."""
    rng = np.random.default_rng(0)
    J, times = 15, np.arange(4.0)
    table = pd.DataFrame({"id": np.repeat(np.arange(J), 8), "t": np.tile(times, 2 * J)})
    distance = np.abs(times[:, None] - times)
    effects = rng.multivariate_normal(np.zeros(4), 0.6**distance, J)
    y = 1 + effects[table["id"], table["t"].astype(int)] + 0.5 * rng.normal(size=8 * J)
    model = MixedEffectsRegressor(
        ["ar1(0 + t | id)"], fixed_effects=[], e_step="hmc", method="ml", max_iter=5, random_state=0
    )
    with pytest.warns(match="converge"):
        model.fit(table, y)
    sd, sigma = model.variance_components_["sd"].dropna()
    phi = model.variance_components_["corr"].dropna().item()
    S = np.tile(sd**2 * phi**distance, (2, 2)) + sigma**2 * np.eye(8)
    rows = (y - model.intercept_).reshape(J, 8)
    expected = multivariate_normal(np.zeros(8), S).logpdf(rows).sum()
    assert model.loglik_ == pytest.approx(expected, abs=1e-4)


def simulated(matrix, seed, n_groups=60):
    """Groups with effects of a covariance at 5 places, twice each."""
    rng = np.random.default_rng(seed)
    values, vectors = np.linalg.eigh(matrix)
    root = vectors * np.sqrt(np.maximum(values, 0))
    g, t = np.divmod(np.repeat(np.arange(5 * n_groups), 2), 5)
    b = rng.normal(size=(n_groups, 5)) @ root.T
    X = pd.DataFrame({"g": g, "t": t, "f": pd.Categorical(t), "x": rng.normal(size=len(g))})
    return X, 0.3 * X["x"] + b[g, t] + rng.normal(size=len(g))


LAGS = np.abs(np.subtract.outer(np.arange(5), np.arange(5)))
ENDS = {
    "phi is 1": (np.ones((5, 5)), "ar1(0 + t | g)", 1.0),
    "phi is -1": ((-1.0) ** LAGS, "ar1(0 + t | g)", -1.0),
    "cs is 1": (np.ones((5, 5)), "cs(0 + f | g, hom=TRUE)", 1.0),
    "cs is least": (1.25 * np.eye(5) - 0.25, "cs(0 + f | g, hom=TRUE)", -0.25),
}


@pytest.mark.parametrize(("matrix", "term", "end"), ENDS.values(), ids=ENDS)
def test_a_correlation_at_the_end_of_its_range_is_a_singular_fit(matrix, term, end):
    found = []
    for seed in range(4):
        X, y = simulated(matrix, seed)
        model = MixedEffectsRegressor([term], fixed_effects=["x"]).fit(X, y)
        assert model.converged_
        corr = model.variance_components_["corr"][1]
        singular = "singular" in model.result_.status.value
        assert singular == (abs(corr - end) < 1e-6)
        assert np.isnan(model.variance_components_["std_error"][1]) == singular
        assert model.variance_components_["std_error"][0] > 0
        found.append(singular)
    assert any(found)


@pytest.mark.parametrize("term", ["ar1(0 + t | g)", "cs(0 + f | g)", "toep(0 + f | g, hom=TRUE)"])
def test_without_effects_a_structure_has_no_sd(term):
    """Half of all data sets have their maximum at 0."""
    X, y = simulated(0 * LAGS, 3)
    model = MixedEffectsRegressor([term], fixed_effects=["x"]).fit(X, y)
    assert model.converged_
    null = MixedEffectsRegressor(fixed_effects=["x"], method="reml").fit(X, y)
    assert model.loglik_ >= null.loglik_ - 1e-6


@pytest.mark.parametrize("family", ["gaussian", "poisson"])
def test_a_new_time_is_predicted_from_known_ones(table, counts, family):
    """As a category without rows is, to which the fit gives an effect."""
    data, y = (table, "y") if family == "gaussian" else (counts, "c")
    few = data[data["id"] <= 20]
    old = few[~few["t"].isin([3, 8])]
    options = {"family": family, "e_step": "laplace" if family == "poisson" else "auto"}
    options |= {"method": "ml", "random_state": 0, "tol": 1e-6}
    known = fit(f"{y} ~ x + ar1(0 + ft | id)", old, **options)
    times = fit(f"{y} ~ x + ar1(0 + t | id)", old, **options)
    new = few.assign(id=np.where(few["id"] == 7, 999, few["id"]))
    # Of a new time the mean response is that without what is left, as of a new level.
    np.testing.assert_allclose(
        times.predict(new), known.predict(new), atol=1e-5, rtol=0.1 * (family == "poisson")
    )
    if family == "gaussian":
        both = [m.predict(new, return_std=True)[1] for m in (times, known)]
        np.testing.assert_allclose(*both, rtol=1e-5)
        # Jointly as well: rows of one id at one time share what is left.
        rows = new[(new["id"] == 999) | (new["id"] == 5)]
        draws = [m.sample_y(rows, n_samples=20_000, random_state=1) for m in (times, known)]
        np.testing.assert_allclose(*(np.cov(own) for own in draws), atol=0.15)
    else:
        both = [m.sample_y(new, n_samples=4000, random_state=0).std(axis=1) for m in (times, known)]
        np.testing.assert_allclose(*both, rtol=0.2)


def test_a_new_time_that_is_not_told_is_an_error(table):
    for term in ("toep(0 + t | id)", "ar1(0 + t | id, hom=FALSE)"):
        model = fit(f"y ~ x + {term}", table)
        with pytest.raises(ValueError, match=r"column 't' holds 9.0, not seen"):
            model.predict(table[:3].assign(t=9))
    negative, *_ = simulated((-0.8) ** LAGS, 0)
    _, y = simulated((-0.8) ** LAGS, 0)
    model = MixedEffectsRegressor(["ar1(0 + t | g)"], fixed_effects=["x"]).fit(negative, y)
    assert np.isfinite(model.predict(negative[:3].assign(t=7))).all()
    with pytest.raises(ValueError, match=r"column 't' holds 1.5, not seen"):
        model.predict(negative[:3].assign(t=1.5))


@pytest.mark.parametrize("regular", [True, False])
def test_few_of_many_times_tell_phi_whatever_the_smallest_gap(regular):
    """Six of 60 times a group, a year's: neighbours in the table are hardly ever in one group."""
    rng = np.random.default_rng(1)
    pool = np.sort(np.random.default_rng(99).uniform(0, 365, 60))
    if regular:
        pool = 6.0 * np.arange(60)
        pool[1] = 1.0
    t = pool[np.sort([rng.choice(60, 6, replace=False) for _ in range(100)], axis=1)]
    corr = np.exp(-np.abs(t[:, :, None] - t[:, None]) / 60)
    b = np.linalg.cholesky(corr + 1e-9 * np.eye(6)) @ rng.normal(size=(100, 6, 1))
    X = pd.DataFrame({"g": np.repeat(np.arange(100), 6), "t": t.ravel()})
    eta = b.ravel()
    for family, y in (
        ("gaussian", eta + rng.normal(0, 0.5, 600)),
        ("poisson", rng.poisson(np.exp(eta))),
    ):
        e_step = "laplace" if family == "poisson" else "exact"
        model = MixedEffectsRegressor(
            ["ar1(0 + t | g)"], fixed_effects=[], family=family, e_step=e_step
        ).fit(X, y)
        assert model.n_iter_ <= 12
        assert model.result_.status.name == "CONVERGED"
        phi = model.variance_components_.loc[1]
        distance = float(phi["name"].split("(")[1].split()[0])
        assert abs(phi["corr"] - np.exp(-distance / 60)) < 3 * phi["std_error"]
        # By the delta method, over a day.
        per_day = phi["std_error"] / distance * phi["corr"] ** (1 / distance - 1)
        assert 0.001 < per_day < 0.01


def test_a_category_without_rows_has_effects_that_follow_its_neighbours(table):
    some = table[table["t"] != 4]
    model = fit("y ~ x + ar1(0 + ft | id)", some)
    assert list(model.random_effects_["id"]) == [f"ft[{t}]" for t in range(1, 9)]
    effects, phi = model.random_effects_["id"], model.variance_components_["corr"][1]
    between = phi / (1 + phi**2) * (effects["ft[3]"] + effects["ft[5]"])
    np.testing.assert_allclose(effects["ft[4]"], between, atol=1e-8)
    assert np.isfinite(model.predict(table, return_std=True)).all()
    # The same by times, where the fourth is no place.
    times = fit("y ~ x + ar1(0 + t | id)", some)
    assert times.loglik_ == pytest.approx(model.loglik_, abs=1e-6)


def test_an_sd_of_0_is_left_for_a_higher_maximum():
    """Simulated; glmmTMB ends without a positive definite Hessian at about the same."""
    data = pd.read_csv(DATA / "two_maxima.csv")
    X, y = data[["id", "x"]].assign(f=pd.Categorical(data["f"])), data["y"]
    model = MixedEffectsRegressor(["cs(0 + f | id)"], fixed_effects=["x"], method="ml").fit(X, y)
    assert model.converged_
    assert model.loglik_ > -217.622
    shown = model.variance_components_.set_index("name")
    assert shown.loc["f: any two", "corr"] == pytest.approx(-1 / 3, abs=1e-6)
    again = clone(model).set_params(warm_start=True).fit(X, y)
    assert again.fit(X, y).loglik_ == pytest.approx(model.loglik_, abs=1e-6)


def test_an_end_without_correlation_is_left_for_a_higher_maximum():
    """Of a row each at unequal times, that of Laplace's steps from elsewhere."""
    rng = np.random.default_rng(0)
    times = np.array([0, 0.3, 1, 2.5])
    b = rng.multivariate_normal(
        np.zeros(4), 0.01 ** np.abs(np.subtract.outer(times, times)), size=25
    )
    X = pd.DataFrame({"id": np.repeat(np.arange(25), 4), "t": np.tile(times, 25)})
    X["x"] = rng.normal(size=100)
    y = 1 + 0.5 * X["x"] + b.ravel() + 0.5 * rng.normal(size=100)
    exact, laplace = (
        MixedEffectsRegressor(["ar1(0 + t | id)"], fixed_effects=["x"], e_step=e).fit(X, y)
        for e in ("exact", "laplace")
    )
    assert exact.loglik_ == pytest.approx(laplace.loglik_, abs=1e-4)
