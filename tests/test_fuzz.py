"""Random small tables: a model with finite numbers, or an error that names a column or parameter."""

import re
import warnings
from datetime import timedelta

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from sklearn.exceptions import ConvergenceWarning

from sklmm import MixedEffectsRegressor
from tests.tables import cases

#: At least this share of the tables must end in a model: errors alone would show nothing.
LEAST_FITTED = 0.5
PARAMETERS = ["X", "y", "sample_weight", *MixedEffectsRegressor().get_params()]


def fuzz(n_examples):
    return settings(
        max_examples=n_examples,
        deadline=timedelta(seconds=10),
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def names_its_cause(error, case):
    return re.search(rf"{case.names}|\b({'|'.join(PARAMETERS)})\b", str(error)) is not None


def outcome(case, model):
    """ "refused", or "fitted" where every estimate and prediction is finite."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", ConvergenceWarning)
        try:
            model.fit(case.X, case.y, sample_weight=case.weight)
        except (TypeError, ValueError) as error:
            assert names_its_cause(error, case), f"the message names nothing: {error}"
            assert vars(model).keys() == model.get_params(deep=False).keys()
            return "refused"
        assert_finite_estimates(model)
        for X in (case.X, case.new):
            try:
                predictions = model.predict(X, return_std=True)
            except (TypeError, ValueError) as error:
                # Rows of weight 0 may hold what others may not.
                assert case.damaged
                assert names_its_cause(error, case), f"the message names nothing: {error}"
            else:
                assert np.isfinite(predictions).all()
    return "fitted"


def assert_finite_estimates(model):
    tables = [*model.cov_re_.values(), *model.random_effects_.values()]
    tables += [*model.random_effects_std_.values(), model.fixed_effects_["estimate"]]
    for values in [*tables, model.coef_, model.intercept_, model.sigma_]:
        assert np.isfinite(np.asarray(values, float)).all()
    assert not np.isnan(model.loglik_) or model.e_step == "cg"
    assert model.summary()
    assert len(model.conf_int()) == len(model.mc_error_)


def run(n_examples):
    seen = {"fitted": 0, "refused": 0}

    @fuzz(n_examples)
    @given(cases())
    def every(case):
        seen[outcome(case, MixedEffectsRegressor(**case.parameters, random_state=0))] += 1

    every()
    assert seen["fitted"] > LEAST_FITTED * sum(seen.values()), seen


def test_two_hundred_tables():
    run(200)


@pytest.mark.slow
def test_two_thousand_tables():
    run(2000)
