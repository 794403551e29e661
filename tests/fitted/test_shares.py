"""Averaged shares of many classes, against product rules and against many points."""

from functools import lru_cache

import numpy as np
import pytest
from scipy.special import ndtri
from scipy.stats import qmc

from sklmm import families
from sklmm._fitted.shares import averaged_shares

FAMILY = families.Categorical()


def by_product_rule(mean, cov):
    """Trapezoidal sums along each axis of x, eta = mean + L x: exact where steps are short."""
    sd = np.sqrt(cov.diagonal().max())
    x = np.arange(-6, 6, min(0.3 / sd, 0.3))
    z = np.stack(np.meshgrid(x, x, indexing="ij")).reshape(2, -1)
    weights, root = np.exp(-np.square(z).sum(axis=0) / 2), np.linalg.cholesky(cov)
    total = 0.0
    for first, weight in zip(x, np.exp(-(x**2) / 2), strict=True):
        eta = mean[:, None] + root[:, :1] * first + root[:, 1:] @ z
        total = total + weight * (weights @ FAMILY.probabilities(eta[None], {})[0])
    return total / total.sum()


@lru_cache(maxsize=4)
def many_points(d, seed):
    z = ndtri(qmc.Sobol(d, seed=seed).random_base2(18)).T
    return np.concatenate([z, -z], axis=1)


def by_many_points(mean, cov):
    """(Averages over 2^21 points, the standard error of the worst) by four scramblings."""
    values, vectors = np.linalg.eigh(cov)
    root, averages = (vectors * np.sqrt(values))[:, ::-1], []
    for seed in range(4):
        parts = np.array_split(many_points(len(mean), seed), 32, axis=1)
        p = [
            FAMILY.probabilities((mean[:, None] + root @ z)[None], {})[0].mean(axis=0)
            for z in parts
        ]
        averages.append(np.mean(p, axis=0))
    return np.mean(averages, axis=0), np.std(averages, axis=0, ddof=1).max() / 2


def correlations(d, kind, rng):
    """Correlations of any size, of two factors, and of one whose loadings have either sign."""
    if kind == "any":
        loadings = rng.normal(size=(d, d + 1))
    elif kind == "two factors":
        loadings = np.hstack([rng.normal(size=(d, 2)), 0.3 * np.eye(d)])
    else:
        loadings = np.hstack([rng.choice([-1.0, 1.0], size=(d, 1)), 0.5 * np.eye(d)])
    cov = loadings @ loadings.T
    size = np.sqrt(cov.diagonal())
    return cov / np.outer(size, size)


@pytest.mark.parametrize("sd", [1.0, 2.0, 4.0])
@pytest.mark.parametrize("kind", ["any", "two factors", "either sign"])
def test_four_classes_are_integrals_whatever_their_correlations(kind, sd):
    """From those that the first order tells to those that points alone do."""
    rng = np.random.default_rng(5)
    for weight in (0.02, 0.1, 0.3, 1.0):
        own = sd * np.array([1.0, 0.7, 0.9])
        cov = np.outer(own, own) * (weight * correlations(3, kind, rng) + (1 - weight) * np.eye(3))
        mean = sd * rng.normal(size=3) / 2
        found = averaged_shares(mean[None], cov[None])[0]
        np.testing.assert_allclose(found, by_product_rule(mean, cov), atol=7e-5)


@pytest.mark.parametrize("sd", [1.0, 2.0, 4.0])
@pytest.mark.parametrize("d", [5, 9])
def test_the_worst_of_many_classes_is_within_its_error(d, sd):
    rng, worst = np.random.default_rng(11), 0.0
    for kind in ("any", "two factors", "either sign"):
        for weight in (0.1, 0.4, 1.0):
            own = sd * rng.uniform(0.7, 1.0, d)
            cov = np.outer(own, own) * (
                weight * correlations(d, kind, rng) + (1 - weight) * np.eye(d)
            )
            mean = rng.normal(size=d)
            exact, error = by_many_points(mean, cov)
            assert error < 3e-5
            found = averaged_shares(mean[None], cov[None])[0]
            worst = max(worst, np.abs(found - exact).max())
    assert worst < 1e-4


@pytest.mark.parametrize("sd", [0.01, 0.5, 4.0, 40.0])
@pytest.mark.parametrize("common", [0.0, 0.3])
def test_independent_classes_are_one_integral(sd, common):
    """Their shares are those of a common part, within which they are a product rule's."""
    cov = sd**2 * ((1 - common) * np.eye(3) + common)
    mean = np.array([0.5, -0.7, 0.2]) * max(sd / 4, 1)
    found = averaged_shares(mean[None], cov[None])[0]
    if sd < 40:
        np.testing.assert_allclose(found, by_product_rule(mean, cov), atol=1e-5)
        return
    exact, error = by_many_points(mean, cov)
    assert error < 1e-5
    np.testing.assert_allclose(found, exact, atol=2e-5 + 4 * error)


def test_averages_are_smooth_in_the_mean():
    """Derivatives are differences over small steps, as those of marginal means."""
    mean, cov = np.array([0.3, -1.0, 0.8, 0.1]), np.diag([0.4, 1.3, 2.0, 0.0])

    def slope(step):
        moved = np.array([mean + step * np.eye(4)[1], mean - step * np.eye(4)[1]])
        above, below = averaged_shares(moved, np.stack([cov, cov]))
        return (above - below) / (2 * step)

    np.testing.assert_allclose(slope(1e-6), slope(1e-3), atol=2e-5)


def test_shares_next_to_none_are_no_less():
    """Of classes far below the others sums are rounding, whose sign is no share's."""
    far = np.array([[-60.0, -60.0, -60.0, -60.0], [800.0, -800.0, 0.0, 5.0]])
    found = averaged_shares(far, np.stack([np.eye(4), 4 * np.eye(4)]))
    assert (found > 0).all()
    np.testing.assert_allclose(found.max(axis=1), 1.0, rtol=1e-12)


def test_rows_are_told_alone_as_together_and_are_probabilities():
    rng = np.random.default_rng(2)
    mean, n = rng.normal(size=(40, 5)) * 8, 40
    roots = rng.normal(size=(n, 5, 5)) * rng.choice([0.03, 0.3, 1.0], size=(n, 1, 1))
    cov = roots @ roots.transpose(0, 2, 1) + np.eye(5)
    found = averaged_shares(mean, cov)
    assert (found > 0).all()
    np.testing.assert_allclose(found.sum(axis=1), 1.0, rtol=1e-12)
    alone = [averaged_shares(m[None], c[None])[0] for m, c in zip(mean, cov, strict=True)]
    np.testing.assert_allclose(found, alone, atol=2e-6)
