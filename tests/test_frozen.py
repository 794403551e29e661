"""The comparison of numbers before and after a change sees a change."""

import numpy as np
import pytest

from tests.frozen import __main__ as frozen
from tests.frozen.models import CASES


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A file of two models."""
    path = tmp_path_factory.mktemp("frozen") / "kept.npz"
    assert frozen.write(path, chosen(), resume=False) == 0
    return path


def chosen():
    return [CASES[name] for name in ("dyestuff reml", "cbpp laplace")]


def test_the_same_tree_agrees_and_a_cut_run_goes_on(kept, capsys):
    assert frozen.compare(kept, chosen()) == 0
    assert frozen.write(kept, chosen(), resume=True) == 0
    assert "FAIL" not in capsys.readouterr().out


@pytest.mark.parametrize(("share", "failed"), [(1e-7, 1), (1e-9, 0)])
@pytest.mark.parametrize("name", ["estimate", "std_error", "loglik", "effects 0", "mean", "std"])
def test_a_number_that_moved_by_a_share_of_its_unit(kept, tmp_path, capsys, name, share, failed):
    arrays = dict(np.load(kept))
    value, unit, _ = arrays[f"cbpp laplace/{name}"]
    value[0] += share * unit[0]
    np.savez(tmp_path / "moved.npz", **arrays)
    assert frozen.compare(tmp_path / "moved.npz", chosen()) == failed
    assert ("FAIL" in capsys.readouterr().out) == bool(failed)


def test_fits_by_sampling_have_their_monte_carlo_error():
    before, after = np.array([[[1.0], [0.1], [0.03]], [[1.2], [0.1], [0.04]]])
    gap, bound = frozen.deviations(before, after, 1e-8, sampled=True)
    np.testing.assert_allclose([gap[0], bound[0]], [2.0, 0.2 / (4 * 0.05)])
    assert frozen.deviations(before, after, 1e-8, sampled=False)[1][0] > 1e7
    unknown = np.array([[np.nan], [1.0], [0.0]])
    assert frozen.deviations(unknown, unknown, 1e-8, False)[0][0] == 0
    assert frozen.deviations(before, unknown, 1e-8, False)[1][0] == np.inf
