"""The integral on a path of densities, from draws whose moments are known."""

import numpy as np
import pytest

from sklmm.engine.posterior.path import Integral


def drawn(integral, tau, mean, variance, rng=None, n=4, C=9, known=0.0):
    """Draws of that mean and variance: exactly so, or at random; controls know a share of them."""
    # Every chain's moments are the same, or there would be noise.
    noise = np.tile([[1.0], [-1.0]], (n // 2, C)) if rng is None else rng.standard_normal((n, C))
    if rng is None:
        noise = (noise - noise.mean()) / noise.std(ddof=1)
    for row in noise:
        control = known * row if rng is None else known * row + (1 - known) * rng.normal(size=C)
        integral.add(tau, mean + np.sqrt(variance) * row, np.stack([control, np.zeros(C)]))


def filled(f, slope, n_halved=0, rounding=0.0):
    """The integral by draws whose chains agree, but for a share of f at random."""
    integral, rng = Integral(), np.random.default_rng(0)
    for halved in range(n_halved + 1):
        for tau in integral.missing():
            drawn(integral, tau, f(tau) * (1 + rounding * rng.normal(size=9)), slope(tau))
        if halved < n_halved:
            integral.halve()
    return integral.total()[0]


def test_the_rule_is_exact_for_polynomials_of_degree_five():
    rng = np.random.default_rng(0)
    f = np.polynomial.Polynomial(rng.uniform(1, 2, 6))
    found = filled(f, f.deriv())
    assert found.value == pytest.approx(f.integ()(1.0), rel=1e-12)
    # Simpson's is not.
    assert found.bias > 1e-3


@pytest.mark.parametrize("rounding", [0.0, 1e-16, 1e-15, 1e-14])
def test_intervals_are_halved_where_the_integrand_bends(rounding):
    def f(tau):
        return np.log(tau + 0.01)

    def slope(tau):
        return 1 / (tau + 0.01)

    right = 1.01 * np.log(1.01) - 0.01 * np.log(0.01) - 1
    errors = []
    for n_halved in (0, 2, 4, 6):
        found = filled(f, slope, n_halved, rounding)
        errors.append(abs(found.value - right))
        assert errors[-1] < found.bias
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-4


@pytest.mark.parametrize("known", [0.0, 0.7])
def test_the_noise_is_that_of_many_runs(known):
    rng, found = np.random.default_rng(1), []
    for _ in range(200):
        integral = Integral()
        for tau in integral.missing():
            drawn(integral, tau, 2 + 3 * tau, 3.0, rng, known=known)
        total, noises = integral.total()
        assert total.noise == pytest.approx(np.sqrt(sum(n**2 for n in noises.values())))
        found.append((total.value, total.noise))
    values, noise = np.array(found).T
    assert abs(values.mean() - 3.5) < 4 * values.std() / np.sqrt(200)
    assert np.sqrt(np.mean(noise**2)) == pytest.approx(values.std(), rel=0.2)
    if known:
        # Controls of mean 0 with a correlation of .92 with r.
        assert values.std() < 0.6 * np.sqrt(3.0 / 36 * (7**2 + 16**2 + 7**2)) / 30


def test_noise_is_not_taken_for_a_bend():
    """Of a straight integrand the rules are the same: what is off is noise, and told once."""
    rng, plain, told = np.random.default_rng(2), [], []
    for _ in range(100):
        integral = Integral()
        for tau in integral.missing():
            drawn(integral, tau, 2 + 20 * tau, 20.0, rng, known=0.7)
        total, _ = integral.total()
        nodes = {tau: node.told()[0] for tau, node in integral.nodes.items()}
        f = {tau: own[0] for tau, own in nodes.items()}
        slopes = (nodes[0.0][1] - nodes[1.0][1]) / 60
        plain.append(abs((f[0.0] + f[1.0] - 2 * f[0.5]) / 15 + slopes))
        told.append(total.bias)
    assert np.mean(told) < 0.6 * np.mean(plain)
    assert np.median(told) < 0.1 * np.median(plain)
