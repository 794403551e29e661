"""Cluster-robust covariances: against clubSandwich, dense matrices and simulation."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sklmm import Gaussian, MixedEffectsClassifier, MixedEffectsRegressor
from sklmm._fitted import robust
from sklmm.datasets import load_sleepstudy

DATA = Path(__file__).parents[1] / "data"
#: By clubsandwich.R beside it.
REFERENCE = json.loads((DATA / "clubsandwich.json").read_text())


@pytest.fixture(scope="module")
def sleepstudy():
    return load_sleepstudy(as_frame=True).frame


@pytest.fixture(scope="module")
def some(sleepstudy):
    """Fewer rows, and clinics of three subjects."""
    gone = np.isin(np.arange(180) % 7, [0, 5])
    out = sleepstudy[~gone].copy()
    out["Clinic"] = pd.factorize(sleepstudy["Subject"], sort=True)[0][~gone] // 3
    out["Moved"] = out["Reaction"] + 40 * np.sin(2 * out["Clinic"])
    out["w"] = 1.0 + np.arange(1, len(out) + 1) % 3
    out["Own"] = (out["Clinic"] == 2) * 1.0
    return out


def fitted(formula, table, weight=None, **params):
    model = MixedEffectsRegressor.from_formula(formula, tol=1e-9, **params)
    return model.fit(table, sample_weight=weight)


def check(name, model, table, cluster, weight=None):
    for kind, want in REFERENCE[name].items():
        if kind == "vcov":
            continue
        got = model.fixed_effects_table(table, sample_weight=weight, cov=kind, cluster=cluster)
        for column in ("estimate", "std_error", "df"):
            np.testing.assert_allclose(got[column], want[column], rtol=1e-6)
        np.testing.assert_allclose(got["p"], want["p"], rtol=1e-5)


@pytest.mark.parametrize("method", ["reml", "ml"])
def test_slopes(sleepstudy, method):
    model = fitted("Reaction ~ Days + (Days | Subject)", sleepstudy, method=method)
    check(f"sleepstudy_{method}", model, sleepstudy, "Subject")
    check(f"sleepstudy_{method}", model, sleepstudy, None)


def test_clusters_of_several_groups(some):
    model = fitted("Reaction ~ Days + (Days | Subject)", some)
    check("clinics", model, some, "Clinic")
    check("clinics", model, some, [f"clinic {c}" for c in some["Clinic"]])


def test_nested_terms(some):
    model = fitted("Moved ~ Days + (1 | Clinic) + (1 | Clinic:Subject)", some)
    check("nested", model, some, None)
    check("nested", model, some, "Clinic")


def test_machines():
    table = pd.read_csv(DATA / "Machines.csv")
    model = fitted("score ~ C(Machine) + (1 | Worker) + (1 | Worker:Machine)", table)
    check("machines", model, table, "Worker")


def test_precisions(some):
    model = fitted(
        "Reaction ~ Days + (1 | Subject)", some, some["w"], family=Gaussian(weights="precision")
    )
    check("precisions", model, some, "Subject", some["w"])


def test_without_random_effects(some):
    model = fitted("Reaction ~ Days", some)
    check("none", model, some, "Subject")
    with pytest.raises(ValueError, match="cluster=None"):
        model.fixed_effects_table(some, cov="CR2")


def test_a_column_of_one_cluster(some):
    model = fitted("Reaction ~ Days + Own + (1 | Subject)", some)
    check("own", model, some, "Clinic")
    with pytest.raises(ValueError, match="use cov='CR2'"):
        model.fixed_effects_table(some, cov="CR3", cluster="Clinic")


#: Formulas, clusters, and equations of `clubsandwich.json`'s tests of several coefficients.
WALD = {
    "wald_nested": (
        "Moved ~ Days + Square + Half + (1 | Clinic) + (1 | Clinic:Subject)",
        "Clinic",
        ["Days = 0", "Square = 0", "Half = 0"],
    ),
    "wald_equal": (
        "Moved ~ Days + Square + Half + (1 | Clinic) + (1 | Clinic:Subject)",
        "Clinic",
        # The third follows from the others.
        ["Days = Square", "Square + Half = 0", "Days + Half = 0"],
    ),
    "wald_precisions": ("Reaction ~ Days + Square + (1 | Subject)", "Subject", ["Days", "Square"]),
}


@pytest.fixture(scope="module")
def more(some):
    number = pd.factorize(some["Subject"], sort=True)[0] + 1
    return some.assign(Square=some["Days"] ** 2, Half=1.0 * (number % 2 == 0), Third=number % 3)


@pytest.mark.parametrize("name", WALD)
@pytest.mark.parametrize("kind", robust.KINDS)
def test_several_coefficients_at_once(name, kind, more):
    """clubSandwich's Wald_test by "HTZ"."""
    formula, cluster, L = WALD[name]
    weight = more["w"] if name == "wald_precisions" else None
    family = Gaussian() if weight is None else Gaussian(weights="precision")
    model = fitted(formula, more, weight, family=family)
    options = {"X": more, "sample_weight": weight, "cov": kind, "cluster": cluster}
    got = model.linear_hypothesis(L, **options)
    want = pd.DataFrame(REFERENCE[name][kind])
    np.testing.assert_allclose(got, want, rtol=2e-6)


def test_one_coefficient_is_the_tables(more):
    """With t^2 for F, and what it is equal to."""
    model = fitted("Reaction ~ Days + Half + (Days | Subject)", more)
    row = model.fixed_effects_table(more, cov="CR2", cluster="Clinic").loc["Days"]
    got = model.linear_hypothesis("Days = 0", X=more, cov="CR2", cluster="Clinic").iloc[0]
    np.testing.assert_allclose(got, [row["t"] ** 2, 1, row["df"], row["p"]], rtol=1e-10)
    moved = model.linear_hypothesis("Days = 7", X=more, cov="CR2", cluster="Clinic").iloc[0]
    assert moved["F"] == pytest.approx(((row["estimate"] - 7) / row["std_error"]) ** 2)


def test_terms():
    """Of type III clubSandwich's test of all coefficients of a term, whatever the codes are."""
    table = pd.read_csv(DATA / "Machines.csv")
    for codes in ("C(Machine)", "C(Machine, contr.sum)"):
        model = fitted(f"score ~ {codes} + (1 | Worker) + (1 | Worker:Machine)", table)
        for kind in robust.KINDS:
            for type_ in (2, 3):
                got = model.joint_tests(type_, table, cov=kind)
                want = pd.DataFrame(REFERENCE["wald_machines"][kind])
                np.testing.assert_allclose(got, want, rtol=2e-6)


def test_terms_of_type_two_are_cars(more):
    """What a term is tested beside is uncorrelated with it by the robust covariance."""
    model = fitted("Reaction ~ C(Third) * Days + (1 | Subject)", more)
    got = model.joint_tests(2, more, cov="CR2", cluster="Subject")
    for name, term in (("C(Third)", "Third"), ("Days", "Days")):
        np.testing.assert_allclose(got.loc[name], REFERENCE["type_two"][term], rtol=2e-6)
    # Of the interaction type II is III.
    last = model.joint_tests(3, more, cov="CR2", cluster="Subject").iloc[-1]
    np.testing.assert_allclose(got.iloc[-1], last, rtol=1e-8)


def test_more_combinations_than_clusters_tell_are_nan(more, monkeypatch):
    """Three clusters have two directions at most."""
    model = fitted("Reaction ~ Days + Square + Half + (1 | Subject)", more)
    cluster = more["Clinic"] // 2
    assert cluster.nunique() == 3
    options = {"X": more, "cov": "CR2", "cluster": cluster}
    got = model.linear_hypothesis(["Days", "Square", "Half"], **options).iloc[0]
    assert (got["df"], got.isna().sum()) == (3, 3)
    monkeypatch.setattr("sklmm._fitted.hotelling.LARGEST", 100)
    with pytest.raises(ValueError, match="test of 3 combinations of 4 coefficients"):
        model.linear_hypothesis(["Days", "Square", "Half"], **options)


@pytest.mark.slow
def test_tests_of_several_coefficients_have_their_level_where_the_model_is_wrong():
    """Slopes that vary, of two columns, are not in the model: its own test rejects a third."""
    rng = np.random.default_rng(1)
    rejected = np.zeros(2)
    for _ in range(200):
        g = np.repeat(np.arange(20), rng.integers(4, 12, 20))
        X = pd.DataFrame({"x": rng.normal(size=len(g)), "z": rng.normal(size=len(g)), "g": g})
        slopes = rng.normal(size=(2, 20))[:, g]
        y = slopes[0] * X["x"] + slopes[1] * X["z"] + rng.normal(size=len(g))
        model = MixedEffectsRegressor(["g"]).fit(X, y)
        for k, cov in enumerate((None, "CR2")):
            rows = {} if cov is None else {"X": X, "y": y}
            found = model.linear_hypothesis(["x = 0", "z = 0"], cov=cov, **rows)
            rejected[k] += found["p"].iloc[0] < 0.05
    assert rejected[0] / 200 > 0.2
    assert 0.01 < rejected[1] / 200 < 0.1


@pytest.mark.parametrize("kind", robust.KINDS)
def test_repetitions_are_rows(some, kind):
    weight = some["w"].to_numpy()
    weighted = fitted("Reaction ~ Days + (Days | Subject)", some, weight)
    repeated = some.loc[some.index.repeat(weight.astype(int))]
    whole = fitted("Reaction ~ Days + (Days | Subject)", repeated)
    got = weighted.fixed_effects_table(some, sample_weight=weight, cov=kind, cluster="Clinic")
    want = whole.fixed_effects_table(repeated, cov=kind, cluster="Clinic")
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_batches_and_pieces_make_no_difference(some, monkeypatch):
    model = fitted("Moved ~ Days + (1 | Clinic) + (Days | Clinic:Subject)", some)
    want = model.fixed_effects_table(some, cov="CR2")
    monkeypatch.setattr(robust, "BATCH", 60)
    monkeypatch.setattr(robust, "KEPT", 0)
    np.testing.assert_allclose(model.fixed_effects_table(some, cov="CR2"), want, rtol=1e-9)


def test_memberships_and_dropped_columns():
    rng = np.random.default_rng(0)
    g = rng.integers(0, 5, 120)
    pupil = [f"{c}{i}" for c, i in zip(g, rng.integers(0, 3, 120), strict=True)]
    other = [f"{c}{i}" for c, i in zip(g, rng.integers(0, 3, 120), strict=True)]
    X = pd.DataFrame({"x": rng.normal(size=120), "a": pupil, "b": other, "wa": 0.7, "wb": 0.3})
    X["twice"] = 2 * X["x"]
    y = X["x"] + rng.normal(size=5)[g] + rng.normal(size=120)
    from sklmm import RandomEffect

    effect = RandomEffect(("a", "b"), weights=("wa", "wb"))
    with pytest.warns(UserWarning, match="twice"):
        model = MixedEffectsRegressor([effect], fixed_effects=["x", "twice"]).fit(X, y)
    table = model.fixed_effects_table(X, y, cov="CR2", cluster=g)
    assert np.isnan(table.loc["twice", "std_error"])
    # The same by dense matrices.
    design, _ = model._training(X, y, None)
    block, (cov,) = design.blocks[0], model.result_.covariances
    Z = np.zeros((120, block.n_levels))
    for m in range(2):
        np.add.at(Z, (np.arange(120), block.refs[:, m]), block.z[:, m, 0])
    V = Z @ Z.T * cov[0, 0] + np.eye(120) * model.sigma_**2
    D, e = design.X[:, :2], y.to_numpy() - design.X @ model.result_.coef
    M = np.linalg.inv(D.T @ np.linalg.solve(V, D))
    meat = np.zeros((2, 2))
    for j in range(5):
        own = g == j
        W, B = np.linalg.inv(V[np.ix_(own, own)]), V[np.ix_(own, own)] - D[own] @ M @ D[own].T
        L = np.linalg.cholesky(V[np.ix_(own, own)])
        values, vectors = np.linalg.eigh(L.T @ B @ L)
        A = L @ vectors @ np.diag(values**-0.5) @ vectors.T @ L.T
        component = D[own].T @ W @ A @ e[own]
        meat += np.outer(component, component)
    want = np.sqrt(np.diag(M @ meat @ M))
    np.testing.assert_allclose(table["std_error"][:2], want, rtol=1e-8)


@pytest.mark.slow
def test_intervals_cover_where_the_model_is_wrong():
    """Intercepts alone, where slopes vary: the model's intervals of the slope are too short."""
    rng = np.random.default_rng(1)
    hits = np.zeros(2)
    for _ in range(200):
        g = np.repeat(np.arange(20), rng.integers(4, 12, 20))
        X = pd.DataFrame({"x": rng.normal(size=len(g)) + 1.0, "g": g})
        slope = rng.normal(size=20)[g]
        y = slope * X["x"] + rng.normal(size=20)[g] + rng.normal(size=len(g))
        model = MixedEffectsRegressor(["g"]).fit(X, y)
        for k, table in enumerate(
            (model.fixed_effects_, model.fixed_effects_table(X, y, cov="CR2"))
        ):
            hits[k] += table.loc["x", "ci_lower"] < 0 < table.loc["x", "ci_upper"]
    assert hits[0] / 200 < 0.75
    assert 0.91 < hits[1] / 200 < 0.99


def test_missing_rows_are_left_out_of_the_clusters(some):
    holes = some.copy()
    holes.loc[holes.index[::9], "Days"] = np.nan
    formula = "Reaction ~ Days + (1 | Subject)"
    model = MixedEffectsRegressor.from_formula(formula, missing="drop").fit(holes)
    whole = holes.dropna()
    want = MixedEffectsRegressor.from_formula(formula).fit(whole)
    got = model.fixed_effects_table(holes, cov="CR2", cluster=holes["Clinic"])
    pd.testing.assert_frame_equal(
        got, want.fixed_effects_table(whole, cov="CR2", cluster="Clinic"), rtol=1e-6
    )


def test_the_model_s_own_table(sleepstudy):
    model = fitted("Reaction ~ Days + (Days | Subject)", sleepstudy)
    pd.testing.assert_frame_equal(model.fixed_effects_table(), model.fixed_effects_)
    narrow = model.fixed_effects_table(level=0.5)
    assert (narrow["ci_lower"] > model.fixed_effects_["ci_lower"]).all()


def test_what_is_refused(sleepstudy):
    rng = np.random.default_rng(0)
    X = pd.DataFrame(
        {"x": rng.normal(size=60), "g": rng.integers(0, 6, 60), "h": rng.integers(0, 5, 60)}
    )
    y = rng.normal(size=60) + rng.normal(size=6)[X["g"]] + rng.normal(size=5)[X["h"]]
    crossed = MixedEffectsRegressor(["g", "h"]).fit(X, y)
    with pytest.raises(ValueError, match="'h' have rows in several clusters"):
        crossed.fixed_effects_table(X, y, cov="CR2", cluster="g")
    with pytest.raises(ValueError, match="cluster=None"):
        crossed.fixed_effects_table(X, y, cov="CR2")
    with pytest.raises(ValueError, match="needs the rows"):
        crossed.fixed_effects_table(cov="CR2")
    with pytest.raises(ValueError, match="cov='HC3' is not available"):
        crossed.fixed_effects_table(X, y, cov="HC3")
    with pytest.raises(ValueError, match="neither a term of the model nor a column"):
        crossed.fixed_effects_table(X, y, cov="CR2", cluster="school")
    with pytest.raises(ValueError, match="3 labels"):
        crossed.fixed_effects_table(X, y, cov="CR2", cluster=[1, 2, 3])
    for test in (crossed.fixed_effects_table, crossed.joint_tests):
        with pytest.raises(ValueError, match="give cov='CR2' too"):
            test(cluster="g")
    with pytest.raises(ValueError, match="'h' have rows in several clusters"):
        crossed.linear_hypothesis("x", X=X, y=y, cov="CR2", cluster="g")
    with pytest.raises(ValueError, match="needs the rows"):
        crossed.joint_tests(cov="CR2")
    with pytest.raises(ValueError, match="level=2"):
        crossed.fixed_effects_table(level=2)
    classifier = MixedEffectsClassifier(["g"]).fit(X[["x", "g"]], y > 0)
    with pytest.raises(ValueError, match="not for 'bernoulli'"):
        classifier.fixed_effects_table(X, y > 0, cov="CR2", cluster="g")
    bare = MixedEffectsRegressor(["g"], fixed_effects=[], fit_intercept=False).fit(X, y)
    with pytest.raises(ValueError, match="no coefficients"):
        bare.fixed_effects_table(X, y, cov="CR2")
    spread = MixedEffectsRegressor(["g"], dispersion="~ x").fit(X, y)
    with pytest.raises(ValueError, match="a model of the dispersion"):
        spread.fixed_effects_table(X, y, cov="CR2")
    penalised = MixedEffectsRegressor(["g"], coef_prior=1.0).fit(X, y)
    with pytest.raises(ValueError, match="coef_prior"):
        penalised.fixed_effects_table(X, y, cov="CR2", cluster="g")


@pytest.mark.parametrize("kind", ["CR1", "CR2", "CR3"])
def test_a_far_origin_hides_nothing(some, kind):
    model = fitted("Reaction ~ Days + (1 | Subject)", some)
    want = model.fixed_effects_table(some, cov=kind).loc["Days"]
    # Seconds since 1970, of a study of ten seconds.
    far = some.assign(Days=some["Days"] + 1.7e9)
    model = fitted("Reaction ~ Days + (1 | Subject)", far)
    got = model.fixed_effects_table(far, cov=kind).loc["Days"]
    np.testing.assert_allclose(got, want, rtol=1e-5)
    test = model.linear_hypothesis("Days = 0", X=far, cov=kind).loc["L"]
    np.testing.assert_allclose(test[["F", "ddf"]], [want["t"] ** 2, want["df"]], rtol=1e-5)
