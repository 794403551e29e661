#!/usr/bin/env bash
# `marginaleffects.avg_slopes` has standard errors by the delta method, whose derivatives are forward
# differences of forward differences: a step of 1e-4 in the column, whatever its unit, and one of
# sqrt(eps) times the coefficient in that. Of a column whose coefficient is small, an income in yen,
# nothing but rounding is left of them. With marginaleffects 0.6.0 (and 0.6.1, which wants Python
# 3.12) the slope of a logistic model on income has a standard error of 3.0e-7, and z is 0.4, where
# that of statsmodels' own get_margeff() is 1.3e-8, and z is 8; in millions of yen the two agree.
# Nothing is said. Steps of the column's own size, eps=1e5, give the right one.
#
# Seen with marginaleffects 0.6.0, statsmodels 0.14.6, polars 1.44.2, numpy 2.4.6, Python 3.11 (the
# first number is rounding, and another one with other libraries):
#   yen: avg_slopes 3.020e-07, eps=1e5 1.272e-08, get_margeff 1.273e-08
#   million yen: avg_slopes 1.273e-02, get_margeff 1.273e-02
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -q "marginaleffects==0.6.0" "statsmodels==0.14.6" "polars<2"
cat >"$folder/slopes.py" <<'PY'
import warnings

import numpy as np
import pandas as pd
import statsmodels.formula.api as smf
from marginaleffects import avg_slopes

warnings.simplefilter("ignore")
rng = np.random.default_rng(0)
income = rng.normal(5e6, 1.5e6, 500)
table = pd.DataFrame({"income": income})
table["y"] = (rng.random(500) < 1 / (1 + np.exp(-(income - 5e6) / 3e6))).astype(int)


def error(fit, **kwargs):
    return avg_slopes(fit, variables="income", **kwargs).data["std_error"][0]


fit = smf.logit("y ~ income", table).fit(disp=0)
exact = fit.get_margeff().margeff_se[0]
found, wide = error(fit), error(fit, eps=1e5)
print(f"yen: avg_slopes {found:.3e}, eps=1e5 {wide:.3e}, get_margeff {exact:.3e}")
assert abs(found / exact - 1) > 0.2 and abs(wide / exact - 1) < 0.01

fit = smf.logit("y ~ income", table.assign(income=income / 1e6)).fit(disp=0)
found, exact = error(fit), fit.get_margeff().margeff_se[0]
print(f"million yen: avg_slopes {found:.3e}, get_margeff {exact:.3e}")
assert abs(found / exact - 1) < 0.01
PY
"$folder/venv/bin/python" "$folder/slopes.py"
