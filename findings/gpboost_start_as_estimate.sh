#!/usr/bin/env bash
# GPBoost 1.8.0 returns the variance it starts from, with no warning, for a probit model with one random
# intercept and many rows: from 1, its own choice, it stops after 3 iterations at 0.997, and from 0.5 at
# 0.501, while from 2 it goes on to the maximum, at 0.630 (simulated with 0.64). The intercept stays behind
# as well, and its own Laplace log-likelihood lies 9 units below the maximum. Cause: lbfgs, the default,
# stops when one step changes the log-likelihood by less than 1e-6 of its own size (here 0.05), however
# steep it still is; the first steps serve the slope of x and hardly move the variance.
# delta_rel_conv=1e-8 cures it. A start nearer to the maximum does not: it can be what stops the fit.
# For sklmm: what GPBoost returns by default is not the maximum to compare a fit with.
#
# The last column is -log L of a fresh model with these parameters, above the least of the four. Seen with
# Python 3.11, NumPy 2.4.6, for 100,000 rows in 200 groups:
#   GPBoost 1.8.0 as it comes: 3 iterations, variance 0.997, intercept -0.183, -log L +9.33
#   GPBoost 1.8.0 from 0.5: 3 iterations, variance 0.501, intercept -0.184, -log L +3.30
#   GPBoost 1.8.0 from 2: 11 iterations, variance 0.630, intercept -0.252, -log L +0.03
#   GPBoost 1.8.0 with delta_rel_conv=1e-8: 18 iterations, variance 0.629, intercept -0.239, -log L +0.00
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check gpboost==1.8.0 numpy==2.4.6
"$folder/venv/bin/python" - > "$folder/out" <<'PYTHON' || { cat "$folder/out"; exit 1; }
import gpboost
import numpy as np

rng = np.random.default_rng(2)
n, groups = 100_000, 200
group, x = rng.integers(groups, size=n), rng.normal(size=n)
latent = -0.3 + 0.5 * x + rng.normal(scale=0.8, size=groups)[group] + rng.normal(size=n)
X, y = np.column_stack([np.ones(n), x]), (latent > 0).astype(float)


def model():
    return gpboost.GPModel(group_data=group, likelihood="bernoulli_probit")


def fit(**params):
    fitted = model().fit(y=y, X=X, params=params)
    variance, coef = (f(format_pandas=False) for f in (fitted.get_cov_pars, fitted.get_coef))
    value = model().neg_log_likelihood(cov_pars=variance, y=y, fixed_effects=X @ coef)
    assert abs(value - fitted.get_current_neg_log_likelihood()) < 1e-3
    return fitted._get_num_optim_iter(), variance[0], coef[0], value


fits = {
    "as it comes": fit(),
    "from 0.5": fit(init_cov_pars=np.array([0.5])),
    "from 2": fit(init_cov_pars=np.array([2.0])),
    "with delta_rel_conv=1e-8": fit(delta_rel_conv=1e-8),
}
least = min(value for *_, value in fits.values())
for label, (iterations, variance, intercept, value) in fits.items():
    print(
        f"GPBoost {gpboost.__version__} {label}: {iterations} iterations, variance {variance:.3f}, "
        f"intercept {intercept:.3f}, -log L +{value - least:.2f}"
    )
found = np.array([variance for _, variance, *_ in fits.values()])
assert np.abs(found - (1, 0.5, 0.63, 0.63)).max() < 0.01, "where GPBoost stops has changed"
above = np.array([value - least for *_, value in fits.values()])
assert (above[:2] > 2).all() and (above[2:] < 0.1).all(), "how far from the maximum has changed"
PYTHON
if grep Warning "$folder/out"; then
    echo "GPBoost warns now" && exit 1
fi
grep "^GPBoost" "$folder/out"
