#!/usr/bin/env bash
# arviz-stats 0.8.0 installs and imports without a word beside arviz-base 0.8.0 and xarray, and has no
# loo, compare or summary then: `arviz_stats.loo` is a bare AttributeError. Its __init__ swallows the
# ImportError of xarray-einstats, which only its extra "xarray" asks for; no message names it. (Its
# functions on arrays, arviz_stats.base, are there.) sklmm's extra "arviz" asks for that extra.
#
# Seen with Python 3.11, xarray 2026.9.0, NumPy 2.4.6:
#   arviz-stats 0.8.0: loo False, compare False, summary False
#   with xarray-einstats: loo True, compare True, summary True
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
install() {
    "$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@"
}
names() {
    "$folder/venv/bin/python" - "$@" <<'PYTHON'
import sys

import arviz_stats

label, expected = sys.argv[1:]
found = {name: hasattr(arviz_stats, name) for name in ("loo", "compare", "summary")}
print(f"{label}:", ", ".join(f"{name} {there}" for name, there in found.items()))
assert set(found.values()) == {expected == "there"}, "what arviz-stats has by itself has changed"
PYTHON
}
install arviz-base==0.8.0 arviz-stats==0.8.0 xarray==2026.9.0 numpy==2.4.6
names "arviz-stats 0.8.0" missing
install "arviz-stats[xarray]==0.8.0" xarray==2026.9.0 numpy==2.4.6
names "with xarray-einstats" there
