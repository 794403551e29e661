"""Satterthwaite's degrees of freedom, against lmerTest 3.1-3."""

import numpy as np
import pytest
from scipy.stats import norm, t

from sklmm import Gaussian, MixedEffectsRegressor, RandomEffect

MISSING = [0, 1, 2, 14, 15, 39, 40, 41, 42, 76, 98, 99, 100, 149, 150, 151, 152, 153, 154, 155]
SLOPES = ["(1 + Days | Subject)"]
#: Rows of sleepstudy that are left out, terms, method, df, t and p.
LMERTEST = [
    ([], SLOPES, "reml", [16.99972629, 16.99998373], [36.838089646, 6.771481489], 3.263824e-06),
    (
        MISSING,
        SLOPES,
        "reml",
        [16.08051640, 16.78004926],
        [35.261980111, 6.727476514],
        3.792059e-06,
    ),
    (
        MISSING,
        ["Subject"],
        "ml",
        [26.00283946, 143.86538597],
        [26.18867493, 10.68281030],
        5.628964e-20,
    ),
]


@pytest.mark.parametrize("e_step", ["exact", "cg"])
@pytest.mark.parametrize("case", LMERTEST, ids=["balanced", "unbalanced", "ml"])
def test_as_lmertest(sleepstudy, case, e_step):
    missing, terms, method, df, ratio, p = case
    X, y = sleepstudy
    keep = np.setdiff1d(np.arange(len(y)), missing)
    model = MixedEffectsRegressor(terms, method=method, e_step=e_step, dof="satterthwaite")
    model.fit(X.iloc[keep], y.iloc[keep])
    table = model.fixed_effects_
    np.testing.assert_allclose(table["df"], df, rtol=1e-3)
    np.testing.assert_allclose(table["t"], ratio, rtol=1e-4)
    assert table["p"].iloc[1] == pytest.approx(p, rel=0.01)
    half = t(table["df"]).ppf(0.975) * table["std_error"]
    np.testing.assert_allclose(table["ci_upper"] - table["estimate"], half)
    wald = model.conf_int().iloc[:2]
    np.testing.assert_allclose(wald["upper"], table["ci_upper"])


def test_for_gaussian_models_alone(sleepstudy):
    X, y = sleepstudy
    for parameters in ({"family": "gamma"}, {"e_step": "hmc"}):
        model = MixedEffectsRegressor(["Subject"], dof="satterthwaite", **parameters)
        with pytest.raises(ValueError, match="dof='satterthwaite'"):
            model.fit(X, y)


def test_known_variances_leave_a_normal_test(sleepstudy):
    X, y = sleepstudy
    term, family = RandomEffect("Subject", sd=30.0), Gaussian(sigma=28.0)
    model = MixedEffectsRegressor([term], family=family, dof="satterthwaite").fit(X, y)
    table = model.fixed_effects_
    assert np.isinf(table["df"]).all()
    np.testing.assert_allclose(table["p"], 2 * norm.sf(np.abs(table["t"])))
    model = MixedEffectsRegressor(["Subject"], fixed_effects=[], fit_intercept=False)
    assert len(model.set_params(dof="satterthwaite").fit(X, y).fixed_effects_) == 0
