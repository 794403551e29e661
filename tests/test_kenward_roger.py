"""Kenward and Roger's tests, and those of Satterthwaite's rule, against pbkrtest and lmerTest.

`data/kenward_roger.R` made the reference values, by pbkrtest 0.5.2, lmerTest 3.1-3 and emmeans
1.8.4.
"""

import json
import pickle
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import studentized_range

from sklmm import (
    GammaPrior,
    Gaussian,
    MixedEffectsClassifier,
    MixedEffectsRegressor,
    RandomEffect,
    Relationship,
)
from sklmm._fitted.contrasts import contrasts
from sklmm.datasets import load_insteval, load_wine

DATA = Path(__file__).parent / "data"
REFERENCE = json.loads((DATA / "kenward_roger.json").read_text())
LINEAR = [name for name, case in REFERENCE.items() if "vcov_adj" in case]
RULES = {"kenward-roger": "kr", "satterthwaite": "satterthwaite"}
MACHINES = "score ~ Machine + (1 | Worker) + (1 | Worker:Machine)"


def table_of(name):
    table = pd.DataFrame(REFERENCE[name]["data"])
    groups = table.columns.intersection(["Worker", "Subject", "group", "g", "h", "s", "d"])
    return table.astype(dict.fromkeys(groups, str))


def fitted(name, dof):
    formula = re.sub(r"\|\|", " || ", REFERENCE[name]["formula"])
    return MixedEffectsRegressor.from_formula(formula, dof=dof, tol=1e-6).fit(table_of(name))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", LINEAR)
def test_coefficients(name, rule):
    model, known = fitted(name, rule), REFERENCE[name]
    table, own = model.fixed_effects_, known[RULES[rule]]
    np.testing.assert_allclose(table["estimate"], own["estimate"], rtol=1e-5)
    np.testing.assert_allclose(table["std_error"], own["std_error"], rtol=1e-5)
    np.testing.assert_allclose(table["df"], own["df"], rtol=1e-5)
    np.testing.assert_allclose(table["p"], own["p"], rtol=1e-3)
    if rule == "kenward-roger":
        adjusted = model.result_.natural_cov[: len(table), : len(table)]
        np.testing.assert_allclose(adjusted, known["vcov_adj"], rtol=1e-5, atol=1e-9)
        half = (table["ci_upper"] - table["ci_lower"]).to_numpy()
        wald = model.conf_int().iloc[: len(table)]
        np.testing.assert_allclose(wald["upper"] - wald["lower"], half)


@pytest.mark.parametrize("name", LINEAR)
def test_terms(name):
    case, models = REFERENCE[name], {dof: fitted(name, dof) for dof in (*RULES, None)}
    for dof, key in [*RULES.items(), (None, "chi2")]:
        for kind in (2, 3):
            if (known := case.get(f"type{kind}_{key}")) is None:
                continue
            tests = models[dof].joint_tests(kind)
            assert list(tests.index) == list(known)
            for term, row in known.items():
                for column, value in row.items():
                    # Satterthwaite's depends on the combinations that make up a hypothesis, and
                    # lmerTest's of models of one term are not those of others.
                    loose = key == "satterthwaite" and name == "machines_slopes"
                    rtol = 0.03 if loose else 2e-4 if key == "satterthwaite" else 1e-5
                    rtol = max(3 * rtol, 1e-3) if column == "p" else rtol
                    assert tests.loc[term, column] == pytest.approx(value, rel=rtol), (term, column)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", ["machines_missing", "crossed"])
def test_means_and_pairs(name, rule):
    model = fitted(name, rule)
    known = REFERENCE[name]["means_" + rule.partition("-")[0]]
    for what, own in known.items():
        found = contrasts(model._fitted, model.result_, own["L"])
        np.testing.assert_allclose(found.std_error, own["SE"], rtol=1e-5)
        np.testing.assert_allclose(found.dof, own["df"], rtol=1e-5)
        if what == "pairs":
            q = np.sqrt(2) * np.abs(found.estimate / found.std_error)
            tukey = studentized_range.sf(q, 3, found.dof)
            np.testing.assert_allclose(tukey, own["p"], rtol=1e-3, atol=1e-6)


def test_balanced_machines():
    """Values of the issue's reference: pbkrtest, lmerTest and emmeans of all rows of Machines."""
    table = pd.read_csv(DATA / "Machines.csv").astype({"Worker": str})
    model = MixedEffectsRegressor.from_formula(MACHINES, dof="kenward-roger").fit(table)
    adjusted = [[6.1793518741, -2.3696111251], [-2.3696111251, 4.7392222502]]
    np.testing.assert_allclose(model.result_.natural_cov[:2, :2], adjusted, rtol=1e-6)
    row = model.joint_tests().loc["Machine"]
    np.testing.assert_allclose(row, [20.5760828426, 2, 10, 0.00028554849255], rtol=1e-6)
    means = contrasts(model._fitted, model.result_, [[1, 0, 0], [1, 1, 0], [1, 0, 1]])
    np.testing.assert_allclose(means.std_error, 2.4858302183, rtol=1e-6)
    np.testing.assert_allclose(means.dof, 8.5216985161, rtol=1e-6)


def test_balanced_sleepstudy(sleepstudy):
    model = MixedEffectsRegressor(["(1 + Days | Subject)"], dof="kenward-roger").fit(*sleepstudy)
    table = model.fixed_effects_
    np.testing.assert_allclose(table["std_error"], [6.824596695, 1.5457896439], rtol=1e-4)
    np.testing.assert_allclose(table["df"], 17, rtol=1e-6)


def test_a_variance_of_zero_leaves_the_degrees_of_freedom_of_groups():
    table = table_of("zero_variance")
    found = {}
    for rule in RULES:
        model = MixedEffectsRegressor.from_formula("y ~ arm + (1 | group)", dof=rule).fit(table)
        assert model.cov_re_["group"].iloc[0, 0] < 1e-20
        found[rule] = model.fixed_effects_.loc["arm[T.b]", "df"]
    assert found == pytest.approx({"kenward-roger": 8.0, "satterthwaite": 38.0}, rel=1e-6)


def test_weights(sleepstudy):
    known = REFERENCE["weights"]
    table = pd.DataFrame(known["data"])
    precise = Gaussian(weights="precision")
    model = MixedEffectsRegressor(["g"], fixed_effects=["x"], family=precise, dof="kenward-roger")
    tests = model.fit(table[["x", "g"]], table["y"], table["w"]).fixed_effects_
    for column in ("estimate", "std_error", "df"):
        np.testing.assert_allclose(tests[column], known["kr"][column], rtol=1e-4)
    # Repeated rows are rows.
    X, y = sleepstudy
    w = np.tile([1, 2, 3], 60)
    model = MixedEffectsRegressor(["(1 + Days | Subject)"], dof="kenward-roger", tol=1e-6)
    weighted = model.fit(X, y, w).fixed_effects_
    rows = np.repeat(np.arange(180), w)
    pd.testing.assert_frame_equal(weighted, model.fit(X.iloc[rows], y.iloc[rows]).fixed_effects_)


def test_the_lone_term_is_worked_on_level_by_level(sleepstudy, monkeypatch):
    """And a term beside it of a known SD of nearly 0 changes nothing: dense against by level."""
    X, y = sleepstudy
    X = X.assign(half=np.arange(180) % 7)
    alone, beside = ["(1 + Days | Subject)"], RandomEffect("half", sd=1e-6)
    one, two = (
        MixedEffectsRegressor(terms, fixed_effects=["Days"], dof="kenward-roger", tol=1e-6)
        .fit(X, y)
        .fixed_effects_
        for terms in (alone, [*alone, beside])
    )
    np.testing.assert_allclose(one, two, rtol=1e-5)


def test_without_effects_it_is_the_linear_model(sleepstudy):
    X, y = sleepstudy
    model = MixedEffectsRegressor([], fixed_effects=["Days"], dof="kenward-roger").fit(X, y)
    np.testing.assert_allclose(model.fixed_effects_["df"], 178)


def test_known_variances_leave_a_normal_test(sleepstudy):
    X, y = sleepstudy
    term, family = RandomEffect("Subject", sd=30.0), Gaussian(sigma=28.0)
    model = MixedEffectsRegressor([term], family=family, dof="kenward-roger").fit(X, y)
    assert np.isinf(model.fixed_effects_["df"]).all()
    test = model.linear_hypothesis("Days = 0").iloc[0]
    assert np.isinf(test["ddf"])
    assert test["p"] == pytest.approx(model.fixed_effects_.loc["Days", "p"])


@pytest.mark.parametrize(
    ("parameters", "why"),
    [
        ({"method": "ml"}, "method='reml'"),
        ({"e_step": "cg"}, "e_step='exact'"),
        ({"dispersion": "~ Days"}, "dispersion"),
        ({"sd_prior": GammaPrior()}, "priors"),
        ({"random_effects": ["ar1(0 + Days | Subject)"]}, "'ar1'"),
        ({"family": "gamma"}, "family='gaussian'"),
    ],
)
def test_what_has_no_kenward_roger_is_told(sleepstudy, parameters, why):
    model = MixedEffectsRegressor(["Subject"], dof="kenward-roger").set_params(**parameters)
    with pytest.raises(ValueError, match="dof='kenward-roger'") as found:
        model.fit(*sleepstudy)
    assert why in str(found.value)
    assert not hasattr(model, "result_")


def test_linear_hypotheses_are_written_in_any_way():
    model = fitted("with_number", "kenward-roger")
    table = model.fixed_effects_
    first = model.linear_hypothesis("x = 0.5")
    t = (table.loc["x", "estimate"] - 0.5) / table.loc["x", "std_error"]
    assert first.loc["L", "F"] == pytest.approx(t**2)
    assert first.loc["L", "ddf"] == pytest.approx(table.loc["x", "df"])
    weights = pd.Series({"x": 1.0})
    for L, rhs in [(weights, 0.5), (weights.to_dict(), [0.5]), (weights.to_frame().T, 0.5)]:
        pd.testing.assert_frame_equal(model.linear_hypothesis(L, rhs), first)
    matrix = (table.index == "x")[None].astype(float)
    pd.testing.assert_frame_equal(model.linear_hypothesis(matrix, 0.5), first)
    several = model.linear_hypothesis(["A[T.b]:x = 0", "`A[T.c]:x` = A[T.b]:x"])
    np.testing.assert_allclose(several.iloc[0], model.joint_tests().loc["A:x"], rtol=1e-8)
    # What follows from the others says nothing more.
    more = model.linear_hypothesis("A[T.b]:x = 0, A[T.c]:x = 0, A[T.b]:x + A[T.c]:x = 0")
    np.testing.assert_allclose(more.iloc[0], several.iloc[0], rtol=1e-8)


def test_linear_hypotheses_that_cannot_be_read_are_told(sleepstudy):
    model = MixedEffectsRegressor(["Subject"]).fit(*sleepstudy)
    for L, why in [
        ("Weeks = 0", "'Weeks = 0' is no linear equation of Intercept, Days"),
        ("Days * Days = 0", "no linear equation"),
        ({"Weeks": 1}, "'Weeks' is no coefficient"),
        (np.ones((1, 3)), "shape"),
        ([[np.nan, 1.0]], "not finite"),
        ([], "empty"),
    ]:
        with pytest.raises(ValueError, match=why):
            model.linear_hypothesis(L)
    with pytest.raises(ValueError, match="rhs=1: equations"):
        model.linear_hypothesis("Days = 0", rhs=1)
    with pytest.raises(ValueError, match="rhs has the shape"):
        model.linear_hypothesis({"Days": 1}, rhs=[1, 2])
    with pytest.raises(ValueError, match="type=1"):
        model.joint_tests(1)
    # As of a fit whose many sparse columns have no covariance.
    spec = replace(model._fitted.spec, sparse=("z",))
    model._fitted = replace(model._fitted, spec=spec)
    for asked in (model.joint_tests, lambda: model.linear_hypothesis("Days = 0")):
        with pytest.raises(ValueError, match="kept sparse"):
            asked()


def test_chi_square_of_a_binomial_model():
    known = REFERENCE["cbpp"]
    table = pd.DataFrame(known["data"]).astype({"herd": str})
    table["period"] = "p" + table["period"]
    table["healthy"] = table["size"] - table["incidence"]
    model = MixedEffectsRegressor.from_formula(
        "cbind(incidence, healthy) ~ period * kind + (1 | herd)", family="binomial", tol=1e-6
    ).fit(table)
    for kind in (2, 3):
        tests = model.joint_tests(kind)
        for term, row in known[f"type{kind}"].items():
            assert tests.loc[term, "chi2"] == pytest.approx(row["chi2"], rel=2e-3)
            assert tests.loc[term, "df"] == row["df"]


def test_terms_do_not_depend_on_codes():
    table = table_of("crossed")
    plain = fitted("crossed", "kenward-roger").joint_tests()
    terms = "(1 | g) + (1 | h)"
    for formula in (
        f"y ~ C(A, contr.sum) * C(B, contr.helmert) + x + {terms}",
        f"y ~ C(A, contr.treatment(base='c')) * C(B, contr.poly) + x + {terms}",
    ):
        model = MixedEffectsRegressor.from_formula(formula, dof="kenward-roger", tol=1e-6)
        np.testing.assert_allclose(model.fit(table).joint_tests(), plain, rtol=1e-5)
    # Without main effects an interaction stands for them, too.
    model = MixedEffectsRegressor.from_formula(f"y ~ A:B + {terms}").fit(table)
    assert model.joint_tests()["df"].to_dict() == {"A:B": 5}
    model = MixedEffectsRegressor.from_formula(f"y ~ 0 + A + {terms}").fit(table)
    assert model.joint_tests()["df"].to_dict() == {"A": 3}
    model = MixedEffectsRegressor.from_formula(f"y ~ A * bs(x, df=4) + {terms}").fit(table)
    assert model.joint_tests()["df"].to_list() == [2, 4, 8]


def test_terms_of_classes_and_of_ratings():
    data = load_wine(as_frame=True).frame
    model = MixedEffectsClassifier.from_formula(
        "rating ~ temp * contact + (1 | judge)", family="ordinal", e_step="laplace"
    ).fit(data)
    own = [name for name in model.fixed_effects_.index if ":" in name]
    row = model.linear_hypothesis(f"{own[0]} = 0").loc["L"]
    np.testing.assert_allclose(model.joint_tests().loc["temp:contact"], row)
    cut = model.fixed_effects_.index[0]
    z = model.fixed_effects_.loc[cut, "z"]
    assert model.linear_hypothesis(f"{cut} = 0").loc["L", "chi2"] == pytest.approx(z**2)
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"x": rng.normal(size=200), "g": np.arange(200) % 10})
    y = rng.choice(["a", "b", "c"], 200)
    model = MixedEffectsClassifier([], fixed_effects=["x"], e_step="laplace").fit(X, y)
    both = model.linear_hypothesis(["b: x = 0", "c: x = 0"]).loc["L"]
    for kind in (2, 3):
        np.testing.assert_allclose(model.joint_tests(kind).loc["x"], both)


def test_empty_cells_leave_what_is_determined():
    table = table_of("crossed")
    formula = "y ~ A * B + (1 | g)"
    found = []
    # Whatever the columns are that are left out: those of the last cell, or sums over others.
    for names in ({"a": "a", "b": "b", "c": "c"}, {"a": "z", "b": "y", "c": "x"}):
        some = table[(table["A"] != "c") | (table["B"] != "v")].replace({"A": names})
        model = MixedEffectsRegressor.from_formula(formula, dof="kenward-roger", tol=1e-6)
        with pytest.warns(UserWarning, match="linear combinations"):
            found.append(model.fit(some))
    tests = found[0].joint_tests()
    # Of A the difference of a and b has both means; of B no mean over A has all cells.
    assert tests["df"].to_dict() == {"A": 1, "B": 0, "A:B": 1}
    assert np.isnan(tests.loc["B", "p"])
    assert found[0].joint_tests(2)["df"].to_dict() == {"A": 2, "B": 1, "A:B": 1}
    for kind in (2, 3):
        one, other = (model.joint_tests(kind) for model in found)
        np.testing.assert_allclose(one, other, rtol=1e-6)
    # As the table has them, coefficients are those of the columns that are left.
    assert np.isnan(found[0].linear_hypothesis("A[T.c]:B[T.v] = 0")["p"]).all()
    t = found[0].fixed_effects_.loc["B[T.v]", "t"]
    assert found[0].linear_hypothesis("B[T.v] = 0").loc["L", "F"] == pytest.approx(t**2)


def test_copies_of_a_column_have_no_test_of_their_own():
    table = table_of("crossed").eval("x2 = 2 * x")
    with pytest.warns(UserWarning, match="linear combinations"):
        model = MixedEffectsRegressor.from_formula("y ~ x + x2 + A + (1 | g)").fit(table)
    for kind in (2, 3):
        assert model.joint_tests(kind)["df"].to_dict() == {"x": 0, "x2": 0, "A": 2}
    z = model.fixed_effects_.loc["x", "z"]
    assert model.linear_hypothesis("x = 0").loc["L", "chi2"] == pytest.approx(z**2)


def test_another_part_has_hypotheses_by_name():
    rng = np.random.default_rng(0)
    n, x, g = 400, rng.normal(size=400), np.arange(400) % 20
    y = rng.poisson(np.exp(0.5 + 0.3 * x)) * (rng.random(n) > 0.3)
    model = MixedEffectsRegressor(
        ["g"], fixed_effects=["x"], family="poisson", zero_inflation="~ x", e_step="laplace"
    ).fit(pd.DataFrame({"x": x, "g": g}), y)
    z = model.zero_inflation_effects_.loc["x", "z"]
    assert model.linear_hypothesis("zero: x = 0").loc["L", "chi2"] == pytest.approx(z**2)
    assert list(model.joint_tests().index) == ["x"]
    wine = load_wine(as_frame=True).frame
    model = MixedEffectsClassifier.from_formula(
        "rating ~ temp + (1 | judge)", family="ordinal", nominal="~ contact", e_step="laplace"
    ).fit(wine)
    shifts = model.nominal_effects_
    own, cov = list(shifts.index), model.result_.natural_cov
    # That the shifts of all cutpoints are the same: proportional odds.
    same = model.linear_hypothesis([f"{one} - {two} = 0" for one, two in pairwise(own)]).loc["L"]
    D, V = np.diff(np.eye(4), axis=0), cov[-4:, -4:]
    d = D @ shifts["estimate"]
    assert same["chi2"] == pytest.approx(d @ np.linalg.solve(D @ V @ D.T, d))
    assert same["df"] == 3


def dense(X, changes, variances, known):
    """Kenward and Roger's covariance and df by matrices of all rows: V = known + sum_r s_r G_r."""
    inverse = np.linalg.inv(known + sum(s * G for s, G in zip(variances, changes, strict=True)))
    C, moved = np.linalg.inv(X.T @ inverse @ X), [inverse @ G @ inverse for G in changes]
    P = np.array([-X.T @ own @ X for own in moved])
    Q = np.array([[X.T @ own @ G @ inverse @ X for G in changes] for own in moved])
    information = np.array([[np.sum(own * G) for G in changes] for own in moved])
    information -= 2 * np.einsum("ab,rsba->rs", C, Q)
    information += np.einsum("rab,sba->rs", C @ P, C @ P)
    W = 2 * np.linalg.inv(information)
    own = np.einsum("rs,rsab->ab", W, Q) - np.einsum("rs,rab,bc,scd->ad", W, P, C, P)
    slopes = np.einsum("raa->ra", C @ P @ C)
    dof = 2 * np.diag(C) ** 2 / np.einsum("ra,rs,sa->a", slopes, W, slopes)
    return C + C @ (own + own.T) @ C, dof


def check_dense(model, X, changes, variances, known=0.0):
    covariance, dof = dense(X, changes, variances, known)
    result = model.result_
    np.testing.assert_allclose(result.natural_cov[: len(dof), : len(dof)], covariance, rtol=1e-8)
    np.testing.assert_allclose(result.dof, dof, rtol=1e-8)


def test_related_levels_memberships_and_a_known_sd_beside_dense_matrices():
    rng = np.random.default_rng(0)
    n, x = 120, rng.normal(size=120)
    first, second, g = (rng.integers(8, size=n) for _ in range(3))
    X = pd.DataFrame({"x": x, "one": first, "two": second, "g": g})
    members = (np.eye(8)[first] + np.eye(8)[second]) / 2
    root = rng.normal(size=(8, 8))
    relation = root @ root.T + np.eye(8)
    related = RandomEffect("g", slopes=["x"], covariance=Relationship(relation, range(8)))
    y = 1 + x + rng.normal(size=8)[g] + members @ rng.normal(size=8) + rng.normal(size=n)
    terms = [related, RandomEffect(["one", "two"], weights="equal")]
    model = MixedEffectsRegressor(terms, fixed_effects=["x"], dof="kenward-roger").fit(X, y)
    design, by_g = np.column_stack([np.ones(n), x]), relation[np.ix_(g, g)]
    changes = [by_g, by_g * np.add.outer(x, x), by_g * np.outer(x, x), members @ members.T]
    S, M = model.result_.covariances
    variances = [S[0, 0], S[0, 1], S[1, 1], M[0, 0], model.sigma_**2]
    check_dense(model, design, [*changes, np.eye(n)], variances)
    # Of what is known nothing is estimated.
    terms = ["one", RandomEffect("g", sd=0.8)]
    model = MixedEffectsRegressor(terms, fixed_effects=["x"], dof="kenward-roger").fit(X, y)
    known, one = 0.64 * np.equal.outer(g, g), 1.0 * np.equal.outer(first, first)
    variances = [model.result_.covariances[0][0, 0], model.sigma_**2]
    check_dense(model, design, [one, np.eye(n)], variances, known)


def test_slopes_of_the_largest_term_beside_dense_matrices():
    rng = np.random.default_rng(1)
    n, x, z = 150, *rng.normal(size=(2, 150))
    g, h = rng.integers(12, size=n), rng.integers(6, size=n)
    y = x + rng.normal(size=12)[g] * (1 + 0.5 * z) + 0.7 * rng.normal(size=6)[h] * x
    X, terms = pd.DataFrame({"x": x, "z": z, "g": g, "h": h}), ["(1 + z | g)", "(1 + x || h)"]
    model = MixedEffectsRegressor(terms, fixed_effects=["x", "z"], dof="kenward-roger")
    model.fit(X, y + rng.normal(size=n))
    G, H = 1.0 * np.equal.outer(g, g), 1.0 * np.equal.outer(h, h)
    changes = [G, G * np.add.outer(z, z), G * np.outer(z, z), H, H * np.outer(x, x), np.eye(n)]
    S, D = model.result_.covariances
    variances = [S[0, 0], S[0, 1], S[1, 1], D[0, 0], D[1, 1], model.sigma_**2]
    check_dense(model, np.column_stack([np.ones(n), x, z]), changes, variances)


def test_batches_have_the_same_tests(sleepstudy):
    X, y = sleepstudy
    model = MixedEffectsRegressor(["(1 + Days | Subject)"], dof="kenward-roger", tol=1e-6)
    whole = model.fit(X, y).fixed_effects_
    parts = [(X[:100], y[:100]), (X[100:], y[100:])]
    np.testing.assert_allclose(model.fit_batches(parts).fixed_effects_, whole, rtol=1e-6)


def test_an_updated_model_tests_the_same(sleepstudy):
    X, y = sleepstudy
    model = MixedEffectsRegressor(["Subject"], dof="kenward-roger").fit(X, y)
    before = model.joint_tests()
    after = model.update(X[:20].assign(Subject=999), y[:20]).joint_tests()
    pd.testing.assert_frame_equal(after, before)


def test_a_saved_model_tests_the_same():
    model = fitted("crossed", "satterthwaite")
    other = pickle.loads(pickle.dumps(model))
    for kind in (2, 3):
        pd.testing.assert_frame_equal(other.joint_tests(kind), model.joint_tests(kind))


@pytest.mark.slow
def test_crossed_factors_of_thousands_of_levels():
    """Of all ratings df are near Satterthwaite's; departments leave 13 to the intercept."""
    X, y = load_insteval(return_X_y=True, as_frame=True)
    terms = ["students", "instructors", "departments"]
    df = [
        MixedEffectsRegressor(terms, fixed_effects=["service"], dof=rule)
        .fit(X, y)
        .fixed_effects_["df"]
        for rule in RULES
    ]
    np.testing.assert_allclose(df[0], df[1], rtol=0.1)
    assert 13 < df[0].iloc[0] < df[1].iloc[0]


def test_slopes_of_levels_are_one_hypothesis_by_either_type():
    """No other term says anything of x: type III asks what type II does, in the same rows."""
    rng = np.random.default_rng(3)
    frame = pd.DataFrame({"g": rng.integers(0, 20, 200), "a": rng.choice(list("ppq"), 200)})
    frame["x"] = rng.normal(size=200) + 0.5
    frame["y"] = rng.normal(size=20)[frame["g"]] * (1 + frame["x"]) + rng.normal(size=200)
    for formula in ("y ~ a:x + (1 + x | g)", "y ~ a / x + (1 + x | g)"):
        model = MixedEffectsRegressor.from_formula(formula, dof="satterthwaite").fit(frame)
        two, three = model.joint_tests(2), model.joint_tests(3)
        np.testing.assert_allclose(three.loc["a:x"], two.loc["a:x"], rtol=1e-6)


def test_no_coefficients_have_no_tests():
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"g": np.arange(40) % 8})
    options = {"fixed_effects": [], "fit_intercept": False, "dof": "kenward-roger"}
    model = MixedEffectsRegressor(["g"], **options).fit(X, rng.normal(size=40))
    assert model.fixed_effects_.empty
    assert model.joint_tests().empty
    with pytest.raises(ValueError, match="L: this model has no coefficients"):
        model.linear_hypothesis("x = 0")


@pytest.fixture(scope="module")
def numbered():
    """A model of an array: its coefficients have the names 1 and 2."""
    rng = np.random.default_rng(0)
    X = np.column_stack([np.arange(60) % 12, rng.normal(size=(60, 2))])
    return MixedEffectsRegressor([0]).fit(X, X[:, 1] + rng.normal(size=60))


def test_a_number_is_no_name_but_in_backquotes(numbered):
    for L, weights in (("`1` = 2", {"1": 1}), ("2 * `1` - `2` = 2", [[0, 2, -1]])):
        expected = numbered.linear_hypothesis(weights, rhs=2)
        pd.testing.assert_frame_equal(numbered.linear_hypothesis(L), expected)
    several = numbered.linear_hypothesis([{"1": 1}, {"1": 1, "2": 1}])
    pd.testing.assert_frame_equal(several, numbered.linear_hypothesis([[0, 1, 0], [0, 1, 1]]))


@pytest.mark.parametrize(
    ("L", "rhs", "message"),
    [
        ("2 = 1", None, "no linear equation of Intercept, 1, 2, such as '`2` = 0'"),
        (["`1` = 0", "`1` = 1"], None, "L: the equations 0, 1 contradict each other"),
        ([[0, 1, 0], [0, 0, 1], [0, 2, 2]], [0, 1, 1], "equations 0, 1, 2 contradict"),
        ([[0, 0, 0]], 1, "equations 0 contradict"),
        ({"1": 1}, np.nan, "rhs=nan is not finite"),
        ({"1": 1}, "one", "rhs: 'one' is not numeric"),
        ([{"1": 1}, {"2": np.nan}], None, "L has values that are not finite"),
        ([["a", 1, 2]], None, "is not numeric"),
        (pd.DataFrame([[1, 2]], columns=["1", "1"]), None, "L: '1' has weights twice"),
        ([], None, "L is empty"),
    ],
)
def test_hypotheses_that_are_none(numbered, L, rhs, message):
    with pytest.raises(ValueError, match=message):
        numbered.linear_hypothesis(L, rhs)


@pytest.mark.parametrize("seed", range(4))
def test_variances_that_are_only_known_together(seed):
    """A level for each row: least squares' covariance and degrees of freedom."""
    rng = np.random.default_rng(seed)
    X = pd.DataFrame({"g": np.arange(20), "x": rng.normal(size=20)})
    y = X["x"] + rng.normal(size=20)
    with pytest.warns(UserWarning, match="do not identify"):
        model = MixedEffectsRegressor(["g"], dof="kenward-roger").fit(X, y)
    plain = MixedEffectsRegressor(None, fixed_effects=["x"], dof="kenward-roger").fit(X, y)
    table, expected = model.fixed_effects_, plain.fixed_effects_
    np.testing.assert_allclose(table["std_error"], expected["std_error"], rtol=1e-4)
    np.testing.assert_allclose(table["df"], 18, rtol=1e-4)
    assert model.joint_tests().loc["x", "df"] == 1
