#!/usr/bin/env bash
# skops 0.16.0 writes an estimator whose fitted state holds a pandas RangeIndex or Categorical, and
# cannot read the file again though every type it asks about is trusted: the RangeIndex raises, and the
# Categorical comes back as an object without categories that raises when it is read. The fault shows
# where the model is used, which may be another machine, later.
#
# Seen with Python 3.11, pandas 2.3.3, scikit-learn 1.9.1, NumPy 2.4.6:
#   RangeIndex: written, read TypeError
#   Categorical: written, read TypeError
#   ndarray: written, read ['0.0', '1.0', '2.0']
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    skops==0.16.0 pandas==2.3.3 scikit-learn==1.9.1 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
import pandas as pd
import skops
from sklearn.base import BaseEstimator
from skops import io


class Model(BaseEstimator):
    pass


def outcome(value):
    model = Model()
    model.levels_ = value
    written = io.dumps(model)
    try:
        found = io.loads(written, trusted=io.get_untrusted_types(data=written))
        return str(list(map(str, found.levels_)))
    except Exception as error:
        return type(error).__name__


values = (pd.RangeIndex(3), pd.Categorical(["a", "b"]), np.arange(3.0))
seen = {type(v).__name__: outcome(v) for v in values}
print("skops", skops.__version__)
for name, result in seen.items():
    print(f"{name}: written, read {result}")
expected = {"RangeIndex": "TypeError", "Categorical": "TypeError", "ndarray": str(["0.0", "1.0", "2.0"])}
assert seen == expected, "what skops can read again has changed"
PYTHON
