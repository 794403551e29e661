"""The adapter for marginaleffects: averages are those of `predict`, errors the delta method's."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from sklmm import MixedEffectsClassifier, MixedEffectsRegressor
from sklmm.datasets import load_sleepstudy, load_wine

me = pytest.importorskip("marginaleffects")

# What polars 2 has not.
pytestmark = pytest.mark.filterwarnings("ignore:.*cat.get_categories:DeprecationWarning")


@pytest.fixture(scope="module")
def sleepstudy():
    X, y = load_sleepstudy(return_X_y=True, as_frame=True)
    days, i = X["Days"], np.arange(len(X))
    X = X.assign(late=np.where(days > 4, "late", "early"), weight=i % 3 + 1.0, site=i % 2)
    X = X.assign(label=np.where(i % 2, "odd", "even"))
    model = MixedEffectsRegressor(
        ["(1 + Days | Subject)"], fixed_effects="~ Days * late + C(site)"
    ).fit(X, y)
    return model, X


@pytest.fixture(scope="module")
def wine():
    X, y = load_wine(return_X_y=True, as_frame=True)
    X = X.assign(x=np.arange(len(X)) % 5 / 2)
    model = MixedEffectsClassifier(
        ["judge"], fixed_effects="~ temp + x", e_step="laplace", random_state=0
    )
    return model.fit(X, y > 3), X


def columns(model, X):
    """The fixed part of rows."""
    return model._fitted.spec.apply(X).X


@pytest.mark.parametrize("include_random", [True, False, ["Subject"]])
def test_averages_are_those_of_predict(sleepstudy, include_random):
    model, X = sleepstudy
    adapter = model.to_marginaleffects(X, include_random=include_random)
    mean, x = model.predict(X, include_random=include_random), columns(model, X)
    found = me.avg_predictions(adapter).data.row(0, named=True)
    V = model.result_.coef_cov
    assert found["estimate"] == pytest.approx(mean.mean())
    assert found["std_error"] == pytest.approx(np.sqrt(x.mean(0) @ V @ x.mean(0)), rel=1e-5)
    np.testing.assert_allclose(me.predictions(adapter).data["estimate"], mean)
    # By columns that are none of the model's, with weights of rows.
    found = me.avg_predictions(adapter, by="label", wts="weight").data
    for name, value in found.select("label", "estimate").iter_rows():
        own = (X["label"] == name).to_numpy()
        assert value == pytest.approx(np.average(mean[own], weights=X["weight"][own]))


def test_comparisons_are_contrasts_of_the_coefficients(sleepstudy):
    model, X = sleepstudy
    found = me.avg_comparisons(model.to_marginaleffects(X)).data
    found = {row["term"]: row for row in found.iter_rows(named=True)}
    assert set(found) == {"Days", "late", "site"}
    assert found["late"]["contrast"] == "late - early"
    assert found["site"]["contrast"] == "1 - 0"
    b, V, names = model.result_.coef, model.result_.coef_cov, list(model.fixed_effects_.index)
    late = (X["late"] == "late").mean()
    L = {
        "Days": {"Days": 1.0, "Days:late[T.late]": late},
        "late": {"late[T.late]": 1.0, "Days:late[T.late]": X["Days"].mean()},
        "site": {"C(site)[T.1]": 1.0},
    }
    for term, weights in L.items():
        row = np.array([weights.get(name, 0.0) for name in names])
        # A step in Days changes random slopes' share too, but not on average over the Subjects.
        assert found[term]["estimate"] == pytest.approx(row @ b, abs=1e-4)
        assert found[term]["std_error"] == pytest.approx(np.sqrt(row @ V @ row), rel=1e-4)


def test_means_agree_with_marginal_means(sleepstudy):
    model, _ = sleepstudy
    grid = pd.DataFrame(
        [(d, s) for d in ("early", "late") for s in (0, 1)], columns=["late", "site"]
    ).assign(Days=4.0, Subject=308)
    adapter = model.to_marginaleffects(grid, include_random=False)
    found = me.avg_predictions(adapter, by="late").data
    means = model.marginal_means("late", at={"Days": 4.0}).table
    np.testing.assert_allclose(found["estimate"], means["estimate"])
    np.testing.assert_allclose(found["std_error"], means["std_error"], rtol=1e-4)
    link = me.avg_predictions(model.to_marginaleffects(grid, scale="link", include_random=False))
    assert link.data["estimate"][0] == pytest.approx(means["estimate"].mean())


def test_slopes_of_probabilities(wine):
    model, X = wine
    typical = MixedEffectsClassifier(**model.get_params()).set_params(handle_unknown="typical")
    typical.fit(X, model.predict(X) | (X["x"] > 1.9))
    for own in (model, typical):
        adapter = own.to_marginaleffects(X, include_random=False)
        found = me.avg_predictions(adapter).data["estimate"][0]
        assert found == pytest.approx(own.predict_proba(X, include_random=False)[:, 1].mean())
    # On the scale of the link slopes are coefficients; eps is of x's own size.
    link = me.avg_slopes(model.to_marginaleffects(X, scale="link"), variables="x", eps=0.5).data
    row = model.fixed_effects_.loc["x"]
    assert link["estimate"][0] == pytest.approx(row["estimate"])
    assert link["std_error"][0] == pytest.approx(row["std_error"], rel=1e-4)


def test_errors_of_probabilities_are_the_delta_method_s(wine):
    model, X = wine
    adapter = model.to_marginaleffects(X, include_random=False)
    found = me.avg_comparisons(adapter, variables="temp").data.row(0, named=True)
    cov, b, sd = (
        model.result_.coef_cov,
        model.result_.coef,
        model.cov_re_["judge"].iloc[0, 0] ** 0.5,
    )
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    weights = weights / weights.sum()

    def difference(coef):
        means = []
        for temp in ("warm", "cold"):
            x = columns(model, X.assign(temp=temp))
            # As `predict_proba` does, also over what is unknown of the coefficients.
            spread = np.sqrt(sd**2 + np.einsum("ni,ij,nj->n", x, cov, x))
            eta = (x @ coef)[:, None] + spread[:, None] * nodes
            means.append((expit(eta) @ weights).mean())
        return means[0] - means[1]

    step = 1e-5
    slope = [(difference(b + step * e) - difference(b - step * e)) / (2 * step) for e in np.eye(3)]
    assert found["estimate"] == pytest.approx(difference(b), abs=0.02)
    assert found["std_error"] == pytest.approx(np.sqrt(slope @ cov @ np.array(slope)), rel=0.05)


def test_several_classes_are_groups():
    X, y = load_wine(return_X_y=True, as_frame=True)
    model = MixedEffectsClassifier(
        ["judge"], fixed_effects="~ temp", family="ordinal", e_step="laplace", random_state=0
    ).fit(X, y)
    found = me.avg_predictions(model.to_marginaleffects(X), by="temp").data
    mean = model.predict_proba(X)
    for group, temp, value in found.select("group", "temp", "estimate").iter_rows():
        own = (X["temp"] == temp).to_numpy()
        assert value == pytest.approx(mean[own, int(group) - 1].mean())
    link = me.avg_comparisons(model.to_marginaleffects(X, scale="link")).data
    assert link["estimate"][0] == pytest.approx(model.fixed_effects_["estimate"].iloc[-1])


def test_parts_of_counts():
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"x": rng.normal(size=400), "g": np.arange(400) % 20})
    y = rng.poisson(np.exp(0.5 + 0.3 * X["x"])) * (rng.random(400) > 0.3)
    model = MixedEffectsRegressor(
        ["g"], fixed_effects=["x"], zero_inflation=["x"], family="poisson", e_step="laplace"
    ).fit(X, y)
    for component in (None, "conditional", "zero"):
        found = me.avg_predictions(model.to_marginaleffects(X, component=component)).data
        assert found["estimate"][0] == pytest.approx(model.predict(X, component=component).mean())
        assert found["std_error"][0] > 0
    with pytest.raises(ValueError, match="leave one"):
        model.to_marginaleffects(X, component="zero", scale="link")


def test_missing_groups_and_options(sleepstudy):
    model, X = sleepstudy
    some = X.assign(Subject=X["Subject"].astype("Int64").where(X["Subject"] > 310))
    adapter = model.to_marginaleffects(some)
    found = me.avg_predictions(adapter).data["estimate"][0]
    assert found == pytest.approx(model.predict(some).mean())
    assert me.avg_predictions(adapter, vcov=False).data.columns == ["estimate"]
    V = 4 * model.result_.coef_cov
    wide, own = (me.avg_predictions(adapter, vcov=v).data["std_error"][0] for v in (V, True))
    assert wide == pytest.approx(2 * own)
    with pytest.raises(ValueError, match="vcov='HC3'"):
        me.avg_predictions(adapter, vcov="HC3")
    with pytest.raises(ValueError, match="scale='log'"):
        model.to_marginaleffects(X, scale="log")
    with pytest.raises(ValueError, match="not a term"):
        model.to_marginaleffects(X, include_random=["g"])


def test_arrays_have_columns_by_number():
    rng = np.random.default_rng(1)
    X = np.column_stack([rng.normal(size=60), np.arange(60) % 6])
    y = X[:, 0] + rng.normal(size=60)
    model = MixedEffectsRegressor([1]).fit(X, y)
    found = me.avg_comparisons(model.to_marginaleffects(X), variables="0").data
    assert found["estimate"][0] == pytest.approx(model.coef_[0])
