"""Intervals of each covariance cover the truth as often as they say, and estimates have no bias."""

import pytest

from tests.coverage import CASES, study


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_intervals_cover_and_estimates_are_unbiased(case):
    covered, bias = study(case)
    assert 0.90 <= covered.mean() <= 0.98
    assert covered.min() > 0.88
    assert bias.abs().max() < 3
