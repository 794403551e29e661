import numpy as np
import pytest

from sklmm.engine.runtime.compilation import bucket, pad


@pytest.mark.parametrize("n", [1, 16, 17, 100, 1_000, 58_736, 73_421, 10**7])
def test_a_bucket_holds_n_and_wastes_at_most_an_eighth(n):
    assert n <= bucket(n) <= max(16, n + n / 8 + 16)
    assert bucket(bucket(n)) == bucket(n)


def test_padding_adds_zero_rows():
    padded = pad(np.ones((3, 2)), 5)
    assert padded.shape == (5, 2)
    assert padded[3:].sum() == 0
