#!/usr/bin/env bash
# `X.map_partitions(f, y)` of a few columns X of Parquet files, not in the files' order, and of a y of
# another source, each with 12 partitions: the optimizer fuses X's files to 3 partitions, and not y's,
# and the graph pairs partition 0 of X, four files, with one of y, and has no partition 3 of X at all.
# `npartitions` is 12 before and after `optimize()`. With the columns in the files' order y is
# repartitioned to 3 as well. The documentation says that inputs must have the same number of
# partitions, which they say they have. sklmm.dask looks at what optimizing has made of each input,
# and takes the graph that is not optimized.
#
# Seen with Python 3.11, dask 2026.8.0, pyarrow 26.0.1, pandas 3.1.1: rows of partition 0: X 20,000,
# y 5,000; of partition 3: "Missing dependency".
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    "dask[dataframe]==2026.8.0" pyarrow==26.0.1 pandas==3.1.1
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import sys
from pathlib import Path

import dask
import dask.dataframe as dd
import numpy as np
import pandas as pd

folder, rng = Path(sys.argv[1]) / "files", np.random.default_rng(0)
folder.mkdir()
table = pd.DataFrame(rng.normal(size=(60_000, 20)), columns=[f"c{j}" for j in range(20)])
for i in range(12):
    table[5000 * i : 5000 * i + 5000].to_parquet(folder / f"{i:02d}.parquet")
X = dd.read_parquet(folder)[["c1", "c0"]]
y = dd.from_pandas(table["c2"], npartitions=12)
both = X.map_partitions(
    lambda X, y: [(len(X), len(y))], y, meta=(None, object), enforce_metadata=False
)
print("partitions:", X.npartitions, y.npartitions, both.npartitions, both.optimize().npartitions)
parts = both.to_delayed()
rows = dask.compute(parts[0], scheduler="sync")[0]
print("rows of partition 0, of X and of y:", rows)
try:
    dask.compute(parts[3], scheduler="sync")
except ValueError as error:
    print("partition 3:", str(error)[:60])
assert rows != [(5000, 5000)], "map_partitions has changed"
PYTHON
