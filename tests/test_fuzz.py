"""Random small tables: a model of finite numbers, or an error that names a column or parameter."""

import re
import warnings
from functools import partial
from time import process_time

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from sklearn.exceptions import ConvergenceWarning

from sklmm import MixedEffectsClassifier, MixedEffectsRegressor
from tests.tables import CLASSES, COUNTS, cases, responses

#: At least this share of the tables must end in a model: errors alone would show nothing.
#: Two thirds do on average; hypothesis varies what it has drawn, so errors come in clusters.
LEAST_FITTED = 0.3
PARAMETERS = ["X", "y", "sample_weight", *MixedEffectsRegressor().get_params()]


def fuzz(n_examples):
    return settings(
        max_examples=n_examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
        # What a table holds hangs on a seed, which does not shrink.
        phases=(Phase.explicit, Phase.generate),
    )


def names_its_cause(error, case):
    return re.search(rf"{case.names}|\b({'|'.join(PARAMETERS)})\b", str(error)) is not None


def refusal(function, *args, **kwargs):
    """The ValueError or TypeError of a call, or None; NumPy's and our own warnings are errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.filterwarnings(
            "ignore",
            message=".*distutils|.*linear combinations|.*alone reproduce y|.*do not identify",
        )
        try:
            function(*args, **kwargs)
        except (TypeError, ValueError) as error:
            return error
    return None


def outcome(case, model):
    """ "refused", or "fitted" where every estimate and prediction is finite."""
    error = refusal(model.fit, case.X, case.y, sample_weight=case.weight)
    if error is not None:
        assert names_its_cause(error, case), f"the message names nothing: {error!r}"
        assert vars(model).keys() == model.get_params(deep=False).keys()
        return "refused"
    error = refusal(assert_estimates, model)
    assert error is None, repr(error)
    for X in (case.X, case.new):
        error = refusal(assert_predictions, model, X)
        # Rows of weight 0 may hold what others may not.
        assert error is None or (case.damaged and names_its_cause(error, case)), repr(error)
    return "fitted"


def assert_estimates(model):
    tables = [*model.cov_re_.values(), *model.random_effects_.values()]
    tables += [*model.random_effects_std_.values(), model.fixed_effects_["estimate"]]
    for values in [*tables, model.coef_, model.intercept_, *model.family_params_.values()]:
        assert np.isfinite(np.asarray(values, float)).all()
    assert not np.isnan(model.loglik_) or model.e_step == "cg"
    assert model.summary()
    assert len(model.conf_int()) == len(model.mc_error_)


def assert_predictions(model, X):
    if isinstance(model, MixedEffectsClassifier):
        predictions = model.predict_proba(X)
        assert set(model.predict(X)) <= set(model.classes_)
    else:
        predictions = model.predict(X, return_std=True)
    assert np.isfinite(predictions).all()


def assert_fitted_or_refused(strategy, make, n_examples, seconds=10, least_fitted=LEAST_FITTED):
    seen = {"fitted": 0, "refused": 0}

    @fuzz(n_examples)
    @given(strategy)
    def every(case):
        # The processor's time, of which other processes of a busy machine take none.
        start = process_time()
        seen[outcome(case, make(**case.parameters, random_state=0))] += 1
        spent = process_time() - start
        assert spent <= seconds, f"{spent:.1f} s"

    every()
    assert seen["fitted"] > least_fitted * sum(seen.values()), seen


def test_two_hundred_tables():
    assert_fitted_or_refused(cases(), MixedEffectsRegressor, 200)


@pytest.mark.slow
def test_two_thousand_tables():
    assert_fitted_or_refused(cases(), MixedEffectsRegressor, 2000)


@pytest.mark.slow
def test_counts():
    assert_fitted_or_refused(
        responses(COUNTS), partial(MixedEffectsRegressor, family="poisson"), 30, 60, 0.3
    )


@pytest.mark.slow
def test_classes():
    assert_fitted_or_refused(responses(CLASSES), MixedEffectsClassifier, 30, 60, 0.3)
