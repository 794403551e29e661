"""Log prior densities in standard units: values by scipy, and derivatives by differences."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import gamma, norm

from sklmm import AR1, CompoundSymmetry, Diagonal, GammaPrior, Toeplitz, Unstructured
from sklmm.engine.rows.standardize import BlockData, Problem
from sklmm.engine.rows.widened import LinearUnits
from sklmm.engine.theta.space import Space
from sklmm.priors import Priors

COVARIANCES = [
    Unstructured(3),
    Diagonal(3),
    Diagonal(3, homogeneous=True),
    CompoundSymmetry(3),
    CompoundSymmetry(3, heterogeneous=False),
    AR1().over((0.0, 1.0, 3.0)),
    Toeplitz(3),
]


def space_of(covariance, prior):
    """The `Space` of a term, two coefficients and sigma, in units other than the table's."""
    rng = np.random.default_rng(0)
    triangle = np.tril(rng.normal(size=(3, 3))) + 2 * np.eye(3)
    z_basis = triangle.T if covariance.basis == "any" else np.diag([1.0, 1.7, 0.6])
    z_basis = np.eye(3) if covariance.basis == "none" else z_basis
    block = BlockData(n_levels=5, r=3, covariance=covariance, size=1.3)
    problem = Problem(
        rows=SimpleNamespace(p=2, columns=None, n_rows=9),
        blocks=(block,),
        n=9.0,
        reml=False,
        basis=np.array([[1.0, -0.4], [0.0, 0.2]]),
        z_bases=(z_basis,),
        y_centre=5.0,
        y_scale=3.0,
        priors=Priors(np.array([10.0, 0.5]), (prior,), {"df: a": 0.7}),
        models=(
            LinearUnits(
                ("df: 1", "df: a"), np.array([[1.0, 0.3], [0.0, 2.0]]), np.ones(2), np.zeros(3)
            ),
        ),
    )
    return Space(problem, {"sigma": "positive", "df: 1": "real", "df: a": "real"})


@pytest.mark.parametrize("prior", [GammaPrior(2.5), GammaPrior(1.7, 0.9, "variance", False)])
@pytest.mark.parametrize("covariance", COVARIANCES, ids=repr)
def test_value_gradient_and_curvature(covariance, prior):
    space, rng = space_of(covariance, prior), np.random.default_rng(1)
    size = space.covariances[0].n_params
    flat = np.concatenate([[0.3, -0.7], 0.4 + 0.3 * rng.random(size), [0.2, 1.1, -0.4]])
    found = space.log_prior(space.split(flat))
    theta = space.split(flat)
    coef = space.problem.coef(theta.beta)
    values = space.natural(theta)
    sds = [value for value, (i, j) in zip(values, covariance.reported, strict=False) if i == j]
    u = np.array(sds) / (space.family(theta.raw)["sigma"] if prior.relative else 1.0)
    u = u**2 if prior.on == "variance" else u
    known = norm.logpdf(coef, scale=[10.0, 0.5]).sum()
    known += norm.logpdf(space.family(theta.raw)["df: a"], scale=0.7)
    if prior.rate:
        known += gamma.logpdf(u, prior.shape, scale=1 / prior.rate).sum()
    else:
        known += (prior.shape - 1) * np.log(u).sum()
    assert found.value == pytest.approx(known)
    h = 1e-4
    ends = [
        [space.log_prior(space.split(flat + s * e)) for s in (h, -h)] for e in np.eye(len(flat))
    ]
    slopes = [(up.value - down.value) / (2 * h) for up, down in ends]
    bends = [(down.gradient - up.gradient) / (2 * h) for up, down in ends]
    np.testing.assert_allclose(found.gradient, slopes, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.curvature, bends, rtol=1e-4, atol=1e-5)


def test_no_prior_is_none():
    space = space_of(Diagonal(3), None)
    assert space.log_prior(space.split(np.zeros(space.size))).gradient[2:-1].tolist() == [0.0] * 5
    bare = Space(space.problem.__class__(**(vars(space.problem) | {"priors": None})), {})
    assert bare.log_prior(None) is None
