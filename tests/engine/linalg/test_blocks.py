"""Inverses of blocks, by LAPACK and, for many, in closed form."""

import numpy as np
import pytest

from sklmm.engine.linalg.blocks import MANY, invert


@pytest.mark.parametrize("n_levels", [MANY, MANY + 1])
def test_inverses_of_few_and_of_many_blocks(n_levels):
    root = np.random.default_rng(0).normal(size=(n_levels, 2, 2))
    blocks = root @ root.transpose(0, 2, 1) + 0.1 * np.eye(2)
    np.testing.assert_allclose(
        invert(blocks) @ blocks, np.tile(np.eye(2), (n_levels, 1, 1)), atol=1e-10
    )
    blocks[3] = 1.0
    with pytest.raises(np.linalg.LinAlgError):
        invert(blocks)
