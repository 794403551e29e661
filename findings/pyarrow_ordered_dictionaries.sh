#!/usr/bin/env bash
# A pyarrow dataset of Parquet files whose ordered categoricals differ is one table, "ordered" still, in
# an order that none of the files declares: categories are appended as they are met. Below both files
# agree that low < mid < high, and one has no low rows; read in the order of the second file first, the
# column says mid < high < low, and its maximum is "low". Two files that contradict each other are
# joined without a word too. pandas and Dask refuse the same union with a TypeError. sklmm reads such
# files one by one and keeps a declared order, or tells that two contradict; a table that comes from
# such a dataset has lost the order before.
#
# Seen with Python 3.11, pyarrow 26.0.1, pandas 3.1.1:
#   a, b: ['low', 'mid', 'high'] ordered True, largest 'high'
#   b, a: ['mid', 'high', 'low'] ordered True, largest 'low'
#   a, c: ['low', 'mid', 'high'] ordered True, largest 'high'
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    pyarrow==26.0.1 pandas==3.1.1
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import sys
from pathlib import Path

import pandas as pd
import pyarrow.dataset as ds

folder = Path(sys.argv[1])
files = {
    "a": (["low", "high"], ["low", "mid", "high"]),
    "b": (["mid", "high"], ["mid", "high"]),
    "c": (["high", "low"], ["high", "mid", "low"]),
}
for name, (labels, declared) in files.items():
    column = pd.Categorical(labels, declared, ordered=True)
    pd.DataFrame({"g": column}).to_parquet(folder / f"{name}.parquet")
expected = {
    "ab": (["low", "mid", "high"], "high"),
    "ba": (["mid", "high", "low"], "low"),
    "ac": (["low", "mid", "high"], "high"),
}
for names, seen in expected.items():
    table = ds.dataset([str(folder / f"{name}.parquet") for name in names]).to_table()
    g = table.to_pandas()["g"]
    found = g.cat.categories.tolist(), g.max()
    print(f"{', '.join(names)}: {found[0]} ordered {g.cat.ordered}, largest {found[1]!r}")
    assert g.cat.ordered and found == seen, "how ordered dictionaries are united has changed"
PYTHON
