"""What several test modules share: lme4's answers, InstEval, and a dense-matrix oracle."""

import os

import numpy as np
import pandas as pd
import pytest
import scipy
from scipy.linalg import block_diag
from sklearn.utils.fixes import parse_version

from sklmm import MixedEffectsRegressor
from sklmm.datasets import load_insteval, load_sleepstudy
from tests.published import answers

if "PYTEST_XDIST_WORKER" in os.environ:
    # The processes share the cores: a pool of threads in each would only make them wait.
    from threadpoolctl import threadpool_limits

    os.environ["OMP_NUM_THREADS"] = "1"
    threadpool_limits(1)


class DenseModel:
    """A linear mixed model by its N x N covariance V, as the textbook writes it.

    `terms` holds (refs [n_rows], z [n_rows, r], Sigma [r, r], n_levels); integer `weights` repeat
    rows.
    """

    def __init__(self, X, y, terms, sigma, weights=None):
        rows = np.arange(len(y))
        if weights is not None:
            rows = np.repeat(rows, np.asarray(weights, dtype=int))
        self.X, self.y, self.sigma = np.asarray(X, float)[rows], np.asarray(y, float)[rows], sigma
        self.Z = np.hstack(
            [self.loadings(refs[rows], z[rows], levels) for refs, z, _, levels in terms]
            or [np.zeros((len(rows), 0))]
        )
        self.D = block_diag(*[np.kron(np.eye(levels), S) for _, _, S, levels in terms])
        if not terms:
            self.D = np.zeros((0, 0))
        self.V = self.Z @ self.D @ self.Z.T + sigma**2 * np.eye(len(rows))
        self.Vi = np.linalg.inv(self.V)
        self.beta_cov = np.linalg.inv(self.X.T @ self.Vi @ self.X)
        self.beta = self.beta_cov @ self.X.T @ self.Vi @ self.y
        self.effects = self.D @ self.Z.T @ self.Vi @ (self.y - self.X @ self.beta)

    @staticmethod
    def loadings(refs, z, n_levels):
        """Z [n_rows, n_levels * r], with a row of zeros where the level is unseen (-1)."""
        out = np.zeros((len(refs), n_levels, z.shape[1]))
        known = np.flatnonzero(refs >= 0)
        out[known, refs[known]] = z[known]
        return out.reshape(len(refs), -1)

    def loglik(self, reml):
        """Log-likelihood, or lme4's REML criterion over -2."""
        n, p = self.X.shape
        residual = self.y - self.X @ self.beta
        value = np.linalg.slogdet(self.V)[1] + residual @ self.Vi @ residual
        if reml:
            value += np.linalg.slogdet(self.X.T @ self.Vi @ self.X)[1]
        return -0.5 * (value + (n - p * reml) * np.log(2 * np.pi))

    def predict(self, X, Z, prior_variance):
        """Mean and variance of new observations: BLUP and its prediction error (Henderson 1975)."""
        c = Z @ self.D @ self.Z.T
        gap = X - c @ self.Vi @ self.X
        variance = prior_variance - np.einsum("nm,nm->n", c @ self.Vi, c)
        variance += np.einsum("np,pq,nq->n", gap, self.beta_cov, gap) + self.sigma**2
        return X @ self.beta + Z @ self.effects, variance


@pytest.fixture
def array_api(monkeypatch):
    """Without it scikit-learn skips its check of the array API, which wants SciPy 1.14."""
    if parse_version(scipy.__version__) >= parse_version("1.14"):
        monkeypatch.setenv("SCIPY_ARRAY_API", "1")


@pytest.fixture
def eagerly():
    """TensorFlow without tracing and compiling, which take longer than few numbers do."""
    from sklmm.engine.runtime.tensorflow import tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture(scope="session")
def dense_model():
    """The class of the dense oracle."""
    return DenseModel


@pytest.fixture(scope="session")
def reference():
    """lme4's answers."""
    return answers()


@pytest.fixture(scope="session")
def insteval():
    """InstEval's columns and ratings."""
    return load_insteval(return_X_y=True, as_frame=True)


@pytest.fixture(scope="session")
def sleepstudy():
    """sleepstudy's columns and reaction times."""
    return load_sleepstudy(return_X_y=True, as_frame=True)


@pytest.fixture(scope="session")
def sleep_model(sleepstudy):
    """lme4's flagship fit, which no test may change."""
    return MixedEffectsRegressor(["(1 + Days | Subject)"]).fit(*sleepstudy)


@pytest.fixture(scope="session")
def estimates():
    """Function from a fitted model to its estimates, in the order of `mc_error_`."""

    def flat(model):
        table = model.variance_components_
        variances = table["sd"].combine_first(table["corr"]).to_numpy()
        values = np.concatenate([model.fixed_effects_["estimate"], variances])
        return pd.Series(values, index=model.mc_error_.index)

    return flat


@pytest.fixture(scope="session")
def standard_errors():
    """Function from a fitted model to its estimates' standard errors, likewise."""

    def flat(model):
        values = np.concatenate(
            [model.fixed_effects_["std_error"], model.variance_components_["std_error"]]
        )
        return pd.Series(values, index=model.mc_error_.index)

    return flat
