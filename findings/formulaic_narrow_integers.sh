#!/usr/bin/env bash
# formulaic 1.2.2 multiplies the columns of an interaction in their own type: of two int8 columns, as
# Parquet files bring them, a product beyond 127 comes back wrapped, without a
# word. patsy 1.0.2, whose formulas formulaic follows, multiplies floats, as R does.
#
# Seen with Python 3.11, NumPy 2.4.6, pandas 2.3.3, for a = (100, 50), b = (2, 3):
#   formulaic 1.2.2 a:b [-56, -106]
#   patsy 1.0.2     a:b [200.0, 150.0]
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    formulaic==1.2.2 patsy==1.0.2 packaging pandas==2.3.3 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import formulaic
import numpy as np
import pandas as pd
import patsy

table = pd.DataFrame({"a": np.array([100, 50], "int8"), "b": np.array([2, 3], "int8")})
ours = formulaic.model_matrix("a:b", table)["a:b"].tolist()
theirs = patsy.dmatrix("a:b", table, return_type="dataframe")["a:b"].tolist()
print(f"formulaic {formulaic.__version__} a:b {ours}")
print(f"patsy {patsy.__version__}     a:b {theirs}")
assert ours == [-56.0, -106.0], "formulaic's products of int8 columns have changed"
assert theirs == [200.0, 150.0], "patsy's products of int8 columns have changed"
PYTHON
