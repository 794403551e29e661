#!/usr/bin/env bash
# pyreml's `A_pedigree`, whose text names nadiv's algorithm, gives an animal (or plant) whose sire and
# dam are one individual the relationships of one with a single parent known: both halves of its line
# are written to one place, and the second replaces the first. A selfed individual c x c of unrelated
# founders' offspring c has A = 1.5 on the diagonal and 1.0 with c (Henderson's tabular method); it
# gets .75 and .5, less than a founder. Other inbreeding, as that of a backcross, is right. sklmm's
# `Relationship.from_pedigree` adds both halves, and a test compares it with the tabular method.
#
# Seen with Python 3.11, pyreml 0.5.4, numpy 2.4.6, pandas 3.1.1:
#   backcross a x c: diagonal 1.25, with c 0.75
#   selfed c x c: diagonal 0.75, with c 0.5 (tabular method: 1.5 and 1.0)
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
# Without PyTorch, which the rest of the package needs.
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps pyreml==0.5.4
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    numpy==2.4.6 pandas==3.1.1
"$folder/venv/bin/python" - <<'PYTHON'
from importlib.machinery import PathFinder
from importlib.util import module_from_spec, spec_from_file_location

import pandas as pd

package = PathFinder.find_spec("pyreml").submodule_search_locations[0]
spec = spec_from_file_location("kinships", f"{package}/kinships.py")
kinships = module_from_spec(spec)
spec.loader.exec_module(kinships)


def last(sire, dam):
    pedigree = pd.DataFrame(
        {"id": list("abcd"), "sire": [None, None, "a", sire], "dam": [None, None, "b", dam]}
    )
    A = kinships.A_pedigree(pedigree)
    return round(float(A[3, 3]), 9), round(float(A[3, 2]), 9)


own, with_c = last("a", "c")
print(f"backcross a x c: diagonal {own:.4g}, with c {with_c:.4g}")
assert (own, with_c) == (1.25, 0.75), "inbreeding by a backcross has changed"
own, with_c = last("c", "c")
print(f"selfed c x c: diagonal {own:.4g}, with c {with_c:.4g} (tabular method: 1.5 and 1.0)")
assert (own, with_c) == (0.75, 0.5), "selfing has changed"
PYTHON
