"""Standard units, and the way back to the table's own."""

import numpy as np
import pytest

from sklmm import MixedEffectsRegressor
from sklmm.datasets import load_sleepstudy
from sklmm.design.design import DesignSpec
from sklmm.design.terms import resolve_terms
from sklmm.engine.rows.standardize import standardize


@pytest.fixture
def design_and_y():
    X, y = load_sleepstudy(return_X_y=True, as_frame=True)
    _, design = DesignSpec.learn(X, resolve_terms(["(1 + Days | Subject)"]), None, True)
    return design, y.to_numpy()


@pytest.fixture(params=["equal", "repeats"])
def weights(request):
    rng = np.random.default_rng(0)
    return np.ones(180) if request.param == "equal" else rng.integers(1, 4, 180).astype(float)


def test_columns_are_orthonormal_and_y_has_unit_residual_variance(design_and_y, weights):
    design, y = design_and_y
    problem = standardize(design, y, weights, fit_intercept=True, reml=True)
    n = weights.sum()
    gram = problem.rows.X.T @ (weights[:, None] * problem.rows.X)
    np.testing.assert_allclose(gram, n * np.eye(problem.p), atol=1e-9)
    residual = problem.rows.y - problem.rows.X @ (problem.rows.X.T @ (weights * problem.rows.y)) / n
    assert weights @ residual**2 / (n - problem.p) == pytest.approx(1.0)
    z = problem.rows.z[0]
    np.testing.assert_allclose(weights @ z**2 / n, 1.0)


@pytest.mark.parametrize("fit_intercept", [True, False])
def test_coefficients_come_back_in_the_tables_units(design_and_y, weights, fit_intercept):
    design, y = design_and_y
    problem = standardize(design, y, weights, fit_intercept=fit_intercept, reml=True)
    beta = problem.rows.X.T @ (weights * problem.rows.y) / weights.sum()
    root = np.sqrt(weights)
    expected = np.linalg.lstsq(root[:, None] * design.X, root * y, rcond=None)[0]
    np.testing.assert_allclose(problem.coef(beta), expected, rtol=1e-9)


def test_covariances_and_effects_come_back_in_the_tables_units(design_and_y, weights):
    design, y = design_and_y
    problem = standardize(design, y, weights, fit_intercept=True, reml=True)
    factor = np.array([[0.7, 0.0], [0.2, 0.5]])
    covariance = problem.covariance(0, factor)
    b = np.random.default_rng(0).standard_normal((18, 2))
    own = problem.effects(0, b)
    scaled = np.einsum("na,na->n", problem.rows.z[0], b[problem.rows.refs[0]])
    table = np.einsum("na,na->n", design.blocks[0].z, own[design.blocks[0].refs])
    np.testing.assert_allclose(table, scaled * problem.y_scale, rtol=1e-12)
    # The effects are a linear map of the standard ones, and so is their covariance.
    to_table = np.linalg.lstsq(b, own, rcond=None)[0]
    moved = to_table.T @ factor
    np.testing.assert_allclose(covariance, moved @ moved.T, rtol=1e-10)


def test_cross_products_are_sums_over_a_levels_rows(design_and_y, weights):
    design, y = design_and_y
    problem = standardize(design, y, weights, fit_intercept=True, reml=True)
    refs, z, found = problem.rows.refs[0], problem.rows.z[0], problem.rows.blocks()[0]
    for level in range(18):
        own = z[refs == level]
        expected = own.T @ (weights[refs == level, None] * own)
        np.testing.assert_allclose(found[level], expected, rtol=1e-12, atol=1e-12)


def test_log_determinant_of_the_basis_is_that_of_x(design_and_y, weights):
    design, y = design_and_y
    problem = standardize(design, y, weights, fit_intercept=True, reml=True)
    gram = design.X.T @ (weights[:, None] * design.X)
    n = weights.sum()
    expected = np.linalg.slogdet(gram)[1] - problem.p * np.log(n)
    assert problem.log_det_basis == pytest.approx(expected, rel=1e-9)


def test_collinear_columns_are_left_out_and_a_perfect_fit_is_seen(design_and_y, weights):
    design, y = design_and_y
    twice = type(design)(np.column_stack([design.X, 3 * design.X[:, 1]]), design.blocks)
    problem = standardize(twice, y, weights, fit_intercept=True, reml=True)
    assert problem.p == 2
    assert not problem.perfect
    line = 2.0 + 3.0 * design.X[:, 1]
    assert standardize(design, line, weights, fit_intercept=True, reml=True).perfect


@pytest.mark.parametrize("scale", [1e-150, 1e-8, 1e8, 1e150])
def test_extreme_units_change_nothing_in_standard_units(design_and_y, weights, scale):
    design, y = design_and_y
    usual = standardize(design, y, weights, fit_intercept=True, reml=True)
    other = type(design)(design.X * [1.0, scale], design.blocks)
    problem = standardize(other, y * scale, weights, fit_intercept=True, reml=True)
    # X is unique up to a rotation.
    np.testing.assert_allclose(
        problem.rows.X @ problem.rows.X.T, usual.rows.X @ usual.rows.X.T, atol=1e-8
    )
    np.testing.assert_allclose(problem.rows.y, usual.rows.y, rtol=1e-8)


@pytest.mark.parametrize(("origin", "unit"), [(2015.0, 1.0), (1.6e9, 3600.0)])
def test_a_slopes_origin_is_the_datas_own_where_coefficients_are_correlated(origin, unit):
    X, y = load_sleepstudy(return_X_y=True, as_frame=True)
    far = X.assign(Days=origin + unit * X["Days"])
    for term, same in (("(1 + Days | Subject)", True), ("(1 + Days || Subject)", False)):
        usual, moved = (
            standardize(
                DesignSpec.learn(table, resolve_terms([term]), None, True)[1],
                y.to_numpy(),
                np.ones(len(y)),
                fit_intercept=True,
                reml=True,
            )
            for table in (X, far)
        )
        assert np.allclose(usual.rows.z[-1], moved.rows.z[-1], rtol=1e-7) == same
        # The origin is that of a fixed column, however its coefficients vary.
        np.testing.assert_allclose(abs(usual.rows.X.T @ moved.rows.X) / 180, np.eye(2), atol=1e-7)


@pytest.mark.parametrize("centre", [0.0, 1e8, 1.7e9])
def test_values_far_from_zero_are_no_perfect_fit(sleepstudy, centre):
    X, y = sleepstudy
    small = 0.05 * (y - y.mean()) / y.std()
    expected = MixedEffectsRegressor(["Subject"]).fit(X, small)
    model = MixedEffectsRegressor(["Subject"]).fit(X, small + centre)
    assert model.sigma_ == pytest.approx(expected.sigma_, rel=1e-5)
    assert model.result_.status is expected.result_.status
