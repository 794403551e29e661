"""Standard errors of structured covariances: of the observed information, whatever the path."""

import warnings

import numpy as np
import pandas as pd
import pytest

from sklmm import MixedEffectsRegressor


def one_row_a_time(phi=0.6, n_groups=40, n_times=5, seed=0):
    rng = np.random.default_rng(seed)
    lags = np.abs(np.subtract.outer(np.arange(n_times), np.arange(n_times)))
    b = rng.multivariate_normal(np.zeros(n_times), phi**lags, size=n_groups)
    X = pd.DataFrame(
        {"id": np.repeat(np.arange(n_groups), n_times), "t": np.tile(np.arange(n_times), n_groups)}
    )
    X["x"] = rng.normal(size=len(X))
    X["f"] = pd.Categorical(X["t"])
    return X, 1 + 0.5 * X["x"] + b.ravel() + 0.5 * rng.normal(size=len(X))


def ar1_loglik(X, y, params):
    """REML's log-likelihood, but for a constant, of (sd, phi, sigma) by dense matrices."""
    sd, phi, sigma = params
    groups = [rows for _, rows in X.groupby("id").indices.items()]
    logdet = quad = xvx = xvy = 0.0
    D = np.column_stack([np.ones(len(X)), X["x"]])
    for rows in groups:
        t = X["t"].to_numpy()[rows]
        V = sd**2 * phi ** np.abs(np.subtract.outer(t, t)) + sigma**2 * np.eye(len(t))
        own, z = D[rows], y.to_numpy()[rows]
        logdet += np.linalg.slogdet(V)[1]
        quad += z @ np.linalg.solve(V, z)
        xvx = xvx + own.T @ np.linalg.solve(V, own)
        xvy = xvy + own.T @ np.linalg.solve(V, z)
    quad -= xvy @ np.linalg.solve(xvx, xvy)
    return -0.5 * (logdet + quad + np.linalg.slogdet(xvx)[1])


def second_differences(function, x, h=1e-3):
    out, steps = np.empty((len(x), len(x))), h * np.eye(len(x))
    for i, a in enumerate(steps):
        for j, b in enumerate(steps):
            out[i, j] = sum(
                s * t * function(x + s * a + t * b) for s in (1, -1) for t in (1, -1)
            ) / (4 * h**2)
    return out


def test_they_are_those_of_the_dense_likelihood_from_any_start():
    """Of a row each the first steps are far from the data: the path is long and bent."""
    X, y = one_row_a_time()
    model = MixedEffectsRegressor(["ar1(0 + t | id)"], fixed_effects=["x"], warm_start=True).fit(
        X, y
    )
    cold = model.variance_components_
    at = np.array([cold["sd"][0], cold["corr"][1], cold["sd"][2]])
    H = second_differences(lambda params: ar1_loglik(X, y, params), at)
    dense = np.sqrt(np.diag(np.linalg.inv(-H)))
    np.testing.assert_allclose(cold["std_error"], dense, rtol=2e-3)
    warm = model.fit(X, y)
    assert warm.n_iter_ < 4
    np.testing.assert_allclose(warm.variance_components_["std_error"], dense, rtol=2e-3)
    cg = MixedEffectsRegressor(
        ["ar1(0 + t | id)"], fixed_effects=["x"], e_step="cg", random_state=0
    ).fit(X, y)
    np.testing.assert_allclose(cg.variance_components_["std_error"], dense, rtol=0.02)


@pytest.mark.parametrize("term", ["cs(0 + f | id, hom=TRUE)", "toep(0 + f | id, hom=TRUE)"])
def test_those_of_other_structures_are_laplaces(term):
    rng = np.random.default_rng(1)
    X, _ = one_row_a_time()
    X = pd.concat([X, X], ignore_index=True)
    b = rng.multivariate_normal(np.zeros(5), 0.5 + 0.5 * np.eye(5), size=40)
    y = 0.5 * X["x"] + b[X["id"], X["t"]] + rng.normal(size=len(X))
    found = [
        MixedEffectsRegressor([term], fixed_effects=["x"], e_step=e, tol=1e-6).fit(X, y)
        for e in ("exact", "laplace")
    ]
    exact, laplace = (m.variance_components_["std_error"] for m in found)
    assert np.isfinite(exact).all()
    np.testing.assert_allclose(exact, laplace, rtol=2e-3)


@pytest.mark.parametrize("rows", [1, 2])
def test_without_correlation_unequal_times_are_independent_effects(rows):
    """Of a row each these are one with the residual, of which the sum of both variances is told."""
    times, ended = np.array([0, 0.3, 1, 2.5]), 0
    for seed in range(6):
        rng = np.random.default_rng(seed)
        X = pd.DataFrame({"id": np.repeat(np.arange(30), 4), "t": np.tile(times, 30)})
        X = pd.concat([X] * rows, ignore_index=True).assign(x=rng.normal(size=120 * rows))
        y = X["x"] + np.tile(rng.normal(size=120), rows) + 0.5 * rng.normal(size=120 * rows)
        model = MixedEffectsRegressor(["ar1(0 + t | id)"], fixed_effects=["x"])
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            shown = model.fit(X, y).variance_components_
        if shown["corr"][1] >= 1e-2:
            continue
        ended += 1
        assert model.converged_
        assert "singular" in model.result_.status.value
        assert np.isnan(shown["std_error"][1])
        if rows == 1:
            assert "do not identify 'sd(id, t)'" in str(found[0].message)
            assert shown["std_error"].isna().all()
            plain = MixedEffectsRegressor(fixed_effects=["x"], method="reml").fit(X, y)
            assert shown["variance"].sum() == pytest.approx(
                plain.variance_components_["variance"].sum(), rel=1e-3
            )
        else:
            assert not found
            plain = MixedEffectsRegressor(["diag(0 + f | id, hom=TRUE)"], fixed_effects=["x"]).fit(
                X.assign(f=pd.Categorical(X["t"])), y
            )
            for column in ("sd", "std_error"):
                np.testing.assert_allclose(
                    shown[column][[0, 2]], plain.variance_components_[column], rtol=5e-3
                )
        assert model.loglik_ == pytest.approx(plain.loglik_, abs=1e-3)
    assert ended


@pytest.mark.parametrize("e_step", ["exact", "cg"])
@pytest.mark.parametrize(("seed", "ends"), [(0, False), (11, True)])
def test_a_residual_sd_that_ends_at_0_has_no_standard_error_and_no_profile(seed, ends, e_step):
    """A sigma of 0.3 is as well within a 95 % interval there, by dense matrices."""
    X, y = one_row_a_time(seed=seed)
    model = MixedEffectsRegressor(["ar1(0 + t | id)"], fixed_effects=["x"], e_step=e_step)
    sd, phi, std = model.fit(X, y).variance_components_[["sd", "corr", "std_error"]].T.to_numpy()
    assert (sd[2] < 0.01 * sd[0]) == ends
    assert np.isnan(std).tolist() == [False, False, ends]
    if ends:
        raised = np.sqrt(sd[0] ** 2 - 0.09), phi[1] * sd[0] ** 2 / (sd[0] ** 2 - 0.09), 0.3
        lost = ar1_loglik(X, y, (sd[0], phi[1], sd[2])) - ar1_loglik(X, y, raised)
        assert lost < 1.92
    if e_step == "exact":
        wald, rows = model.conf_int(), {"X": X, "y": y}
        assert wald.isna().all(axis=1).tolist() == [*[False] * 4, ends]
        drawn = model.conf_int(method="bootstrap", n_resamples=4, random_state=0, **rows)
        assert drawn.notna().all(axis=None)
        some = model.conf_int(method="profile", parm=["x", "sigma"], **rows)
        assert some.isna().to_numpy().tolist() == [[ends] * 2] * 2


def test_a_singular_toeplitz_has_no_profile_and_an_unstructured_one_has():
    """Of one intercept a group, told as a covariance of four places."""
    rng = np.random.default_rng(1)
    g = np.tile(np.repeat(np.arange(30), 4), 2)
    X = pd.DataFrame({"g": g, "x": rng.normal(size=240)})
    X["f"] = pd.Categorical(np.tile(list("abcd"), 60), ordered=True)
    y = X["x"] + rng.normal(size=240) + rng.normal(size=30)[X["g"]]
    for term, known in (("toep(0 + f | g)", False), ("us(0 + f | g)", True)):
        model = MixedEffectsRegressor([term], fixed_effects=["x"], method="ml").fit(X, y)
        assert "singular" in model.result_.status.value
        some = model.conf_int(method="profile", X=X, y=y, parm=["x", "sigma"])
        assert some.notna().to_numpy().tolist() == [[known] * 2] * 2
