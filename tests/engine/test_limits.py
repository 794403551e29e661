"""What is affordable: solvers by the sizes of the terms."""

import numpy as np
import pandas as pd
import pytest

from sklmm import HMC, NUTS, Exact, Gaussian
from sklmm.design.design import DesignSpec
from sklmm.design.terms import resolve_terms
from sklmm.engine import limits
from sklmm.engine.fit import on_cpu, resolve_e_step, resolve_m_step
from sklmm.engine.limits import factorisable, gaussian_draws, is_small
from sklmm.families import CustomFamily, Poisson


@pytest.mark.parametrize("purpose", limits.FACTORISED)
def test_the_largest_term_costs_nothing(purpose):
    most, _ = limits.FACTORISED[purpose]
    assert factorisable([], purpose)
    assert factorisable([10**6], purpose)
    assert not factorisable([10**6, most + 1], purpose)


def test_a_factorisation_has_a_limit_of_work_too():
    assert factorisable([2500, 2000])
    assert not factorisable([10**6, 2000])


def test_small_tables_and_exact_roots():
    assert is_small(300, 40, 4)
    assert not is_small(limits.SMALL_ROWS + 1, 1, 1)
    assert not is_small(4000, 200, 4)
    assert [gaussian_draws(n) for n in (1, 20_000, 10**9)] == [64, 26, 16]


def test_independent_slopes_of_many_levels_are_eliminated_whole():
    table = pd.DataFrame({"g": np.arange(40_000) % 20_000, "x": np.arange(40_000.0)})
    _, design = DesignSpec.learn(table, resolve_terms(["(1 + x || g)"]), None, True)
    assert isinstance(resolve_e_step("auto", Gaussian(), design.sizes), Exact)


def test_chains_are_numpys_on_a_cpu_and_tensorflows_by_name():
    custom = CustomFamily(lambda eta: None)

    def backend(step, family=None, device=None):
        return resolve_e_step(step, family or Poisson(), [50, 40], device=device).backend

    assert backend("auto") == backend(HMC()) == backend("auto", device="CPU:0") == "numpy"
    assert backend("hmc") == backend("auto", custom) == "tensorflow"
    assert backend("auto", device="GPU:0") == backend(HMC(), device="gpu:0") == "tensorflow"
    assert backend(HMC(backend="numpy", n_chains=8), device="GPU:0") == "numpy"
    assert isinstance(resolve_e_step("nuts", Poisson(), [50]), NUTS)
    given = HMC(n_chains=6)
    assert resolve_e_step(given, Poisson(), [50]).n_chains == 6
    assert given.backend == "auto"
    with pytest.raises(ValueError, match="backend='auto' or 'tensorflow'"):
        backend(HMC(backend="numpy"), custom)
    assert resolve_e_step(given, Gaussian(), [50], m_step="adam").backend == "tensorflow"
    with pytest.raises(ValueError, match=r"chains in TensorFlow.*backend='auto' or 'tensorflow'"):
        resolve_m_step("adam", HMC(backend="numpy"), Gaussian())


@pytest.mark.parametrize(
    ("name", "own"),
    [
        (None, True),
        ("CPU:0", True),
        ("cpu", True),
        ("/device:CPU:0", True),
        ("/job:localhost/replica:0/task:0/device:CPU:0", True),
        ("CPU:1", False),
        ("GPU:0", False),
        ("CPUs", False),
    ],
)
def test_the_processor_is_known_by_name(name, own):
    assert on_cpu(name) == own
