#!/usr/bin/env bash
# Dask's `DataFrame.categorize()` gives an ordered categorical of Parquet files its categories in the
# order of the alphabet, and calls them ordered: of low < mid < high the maximum is "mid" then. The
# same column by itself, `ddf["g"].cat.as_known()`, keeps the order, as does computing it without
# either. And of a categorized frame one column cannot be computed, a KeyError of its name. sklmm.dask
# asks Dask for no categories: it learns levels partition by partition and keeps a declared order.
#
# Seen with Python 3.11, dask 2026.8.0, pyarrow 26.0.1, pandas 3.1.1:
#   computed: ['low', 'mid', 'high'] ordered True, largest 'high'
#   as_known: ['low', 'mid', 'high'] ordered True, largest 'high'
#   categorize: ['high', 'low', 'mid'] ordered True, largest 'mid'
#   categorize, one column: KeyError 'g'
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    "dask[dataframe]==2026.8.0" pyarrow==26.0.1 pandas==3.1.1
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import sys

import dask.dataframe as dd
import pandas as pd

file = f"{sys.argv[1]}/ordered.parquet"
labels = ["low", "high", "mid", "low"] * 5
g = pd.Categorical(labels, ["low", "mid", "high"], ordered=True)
pd.DataFrame({"g": g, "x": range(20)}).to_parquet(file, row_group_size=5)
table = dd.read_parquet(file, split_row_groups=True)


def show(name, column, categories, largest):
    found = column.cat.categories.tolist(), column.max()
    print(f"{name}: {found[0]} ordered {column.cat.ordered}, largest {found[1]!r}")
    assert column.cat.ordered and found == (categories, largest), f"{name} has changed"


show("computed", table.compute()["g"], ["low", "mid", "high"], "high")
show("as_known", table["g"].cat.as_known().compute(), ["low", "mid", "high"], "high")
categorized = table.categorize()
show("categorize", categorized.compute()["g"], ["high", "low", "mid"], "mid")
try:
    categorized["g"].compute()
except KeyError as error:
    print("categorize, one column: KeyError", error)
else:
    raise AssertionError("one column of a categorized frame can be computed")
PYTHON
