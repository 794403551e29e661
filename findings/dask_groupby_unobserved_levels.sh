#!/usr/bin/env bash
# Dask's groupby of a categorical with `observed=False` has every level once, as pandas' has, but not
# with `split_out=2`, where each part of the answer lists all levels: a sum of 0 stands beside the
# level's own, eight rows for four levels. `median` repeats them by itself, NaN beside the number. A
# dict or a join made of either takes one of the two. Without observed=False both are right. sklmm.dask
# makes its sums by level itself.
#
# Seen with Python 3.11, dask 2026.8.0, pandas 3.1.1 (four levels, the last not observed):
#   sum: 4 rows, a [156]
#   sum, split_out=2: 8 rows, a [156, 0]
#   median: 12 rows, a [13.5, nan, nan]
#   median, observed=True: 3 rows, a [13.5]
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    "dask[dataframe]==2026.8.0" pyarrow==26.0.1 pandas==3.1.1
"$folder/venv/bin/python" - <<'PYTHON'
import warnings

import dask.dataframe as dd
import pandas as pd

warnings.simplefilter("ignore")
g = pd.Categorical(list("abcabcaab") * 3, list("abcd"))
table = dd.from_pandas(pd.DataFrame({"g": g, "x": range(27)}), npartitions=3)
x = table.groupby("g", observed=False)["x"]
answers = {
    "sum": (x.sum(), 4, 1),
    "sum, split_out=2": (x.sum(split_out=2), 8, 2),
    "median": (x.median(), 12, 3),
    "median, observed=True": (table.groupby("g", observed=True)["x"].median(), 3, 1),
}
for name, (answer, rows, of_a) in answers.items():
    found = answer.compute()
    own = sorted(found[found.index == "a"].tolist(), reverse=True, key=lambda v: (v == v, v))
    print(f"{name}: {len(found)} rows, a {own}")
    assert (len(found), len(own)) == (rows, of_a), f"the rows of {name} have changed"
PYTHON
