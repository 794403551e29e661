#!/usr/bin/env bash
# Dask takes a SciPy sparse array for 56 bytes, whatever it holds: `dask.sizeof` is registered for
# sparse matrices, and arrays, SciPy's newer kind, are none. So a worker that keeps them neither spills
# them, nor counts them in what `memory_limit` manages, nor weighs them where a task is placed. A
# sparse matrix of the same numbers is measured rightly. sklmm's sums tell their size by themselves.
#
# Seen with Python 3.11, dask 2026.8.0, scipy 1.17.1, numpy 2.4.6 (12 MB each):
#   csr: array 56, matrix 12004144
#   csc: array 56, matrix 12004144
#   coo: array 56, matrix 16000224
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    dask==2026.8.0 scipy==1.17.1 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
from dask.sizeof import sizeof
from scipy import sparse

full = np.ones((1000, 1000))
for name in ("csr", "csc", "coo"):
    array = getattr(sparse, f"{name}_array")(full)
    matrix = getattr(sparse, f"{name}_matrix")(full)
    found = sizeof(array), sizeof(matrix)
    print(f"{name}: array {found[0]}, matrix {found[1]}")
    assert found[0] < 100 and found[1] > 12e6 - 1, "what Dask knows of sparse arrays has changed"
PYTHON
