#!/usr/bin/env bash
# A column of a Dask DataFrame that is read from Parquet says that it has as many partitions as the
# frame, and is computed in fewer: where few of the columns are read, Dask fuses files into one task.
# So `map_partitions` of X and of y, cut from one frame by their columns, run on partitions of
# different rows, and results by partition do not pair; `npartitions` and `to_delayed()` tell 12 of
# both. Computed from one expression, as `X.assign(y=y)`, they pair. sklmm.dask cuts X, y and weights
# of a partition from one piece.
#
# Seen with Python 3.11, dask 2026.8.0, pyarrow 26.0.1, pandas 3.1.1:
#   30 columns: npartitions 12, rows by partition [20000] * 12
#   1 column:   npartitions 12, rows by partition [80000] * 3
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    "dask[dataframe]==2026.8.0" pyarrow==26.0.1 pandas==3.1.1
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import sys
from pathlib import Path

import dask.dataframe as dd
import numpy as np
import pandas as pd

folder, rng = Path(sys.argv[1]) / "files", np.random.default_rng(0)
folder.mkdir()
for i in range(12):
    table = pd.DataFrame(rng.normal(size=(20_000, 30)), columns=[f"c{j}" for j in range(30)])
    table.to_parquet(folder / f"{i:02d}.parquet")
whole = dd.read_parquet(folder)
frames = {"30 columns": (whole, [20_000] * 12), "1 column": (whole[["c0"]], [80_000] * 3)}
for name, (frame, rows) in frames.items():
    found = frame.map_partitions(len).compute().tolist()
    print(f"{name}: npartitions {frame.npartitions}, rows by partition {found}")
    assert frame.npartitions == 12 and found == rows, "how partitions are fused has changed"
PYTHON
