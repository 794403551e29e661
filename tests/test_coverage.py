"""Intervals cover the truth as often as they say, and estimates have no bias.

The tests themselves run in processes side by side, so that a study here has one.
"""

import pytest

from tests.coverage import CASES, study
from tests.coverage_of_responses import MODELS

#: Of the responses, one of each kind of part, and fewer sets of them, whose bounds are some three
#: binomial errors of what 60 cover on the mean. `python -m tests.coverage` has 200 of all models.
SOME, N_SETS = ("ordinal, nominal", "zero-inflated negative_binomial", "gamma, dispersion"), 60


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_intervals_cover_and_estimates_are_unbiased(case):
    covered, bias = study(case, n_jobs=1)
    assert 0.90 <= covered.mean() <= 0.98
    assert covered.min() > 0.88
    assert bias.abs().max() < 3


@pytest.mark.slow
@pytest.mark.parametrize("name", SOME)
def test_so_do_those_of_responses_and_parts(name):
    covered, bias = study(MODELS[name], N_SETS, n_jobs=1)
    assert 0.90 <= covered.mean() <= 0.98
    assert bias.abs().max() < 3
