"""Standard errors of structured covariances: of the observed information, whatever the path."""

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
