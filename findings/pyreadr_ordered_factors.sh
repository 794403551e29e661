#!/usr/bin/env bash
# An ordered factor of R loses its order on the way to pandas and back by two readers that both know
# factors. pyreadr 0.5.8 reads it as a Categorical that keeps the levels in their order and says that
# they have none (ordered is False): what asks the type is told no. rdata 1.1.0 reads the same file as
# an ordered Categorical, and writes an ordered Categorical as an unordered factor.
# For sklmm: an ordinal answer from pyreadr needs y.cat.as_ordered().
#
# The file is saveRDS(data.frame(y = factor(c("low", "high", "mid"), levels = c("low", "mid", "high"),
# ordered = TRUE))) of R 4.2.2. Seen with Python 3.11, pandas 2.3.3, NumPy 2.4.6:
#   pyreadr 0.5.8 reads R's file: ['low', 'mid', 'high'] ordered False
#   rdata 1.1.0 reads R's file: ['low', 'mid', 'high'] ordered True
#   rdata 1.1.0 reads its own file: ['low', 'mid', 'high'] ordered False
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    pyreadr==0.5.8 rdata==1.1.0 pandas==2.3.3 numpy==2.4.6
base64 --decode > "$folder/r.rds" <<'RDS'
H4sIAAAAAAAAA12PQQrCMBBFp5O00oIgeA679gSeQMFtaFJbSA2kxeLOi2ucpp1NNvl/fub9kHsF
AAIkIoicLOS36+V0puxIQ0a6jwvRR0Wg7ThLKEkLa17GjuQOa1VMhXUz26HXm5Vd/+gSPm+sGhnH
Ldw5r403zBWtaibnyf1S+qkGwzSH2XvdwpBcVFpNqm49MUlP6d1cc9fyZfzQEUL4Lo/+ARu1B/km
AQAA
RDS
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import sys

import pyreadr
import rdata

folder = sys.argv[1]
ours = rdata.read_rds(f"{folder}/r.rds")
rdata.write_rds(f"{folder}/again.rds", ours)
found = {
    f"pyreadr {pyreadr.__version__} reads R's file": pyreadr.read_r(f"{folder}/r.rds")[None],
    f"rdata {rdata.__version__} reads R's file": ours,
    f"rdata {rdata.__version__} reads its own file": rdata.read_rds(f"{folder}/again.rds"),
}
for what, table in found.items():
    print(f"{what}: {table['y'].cat.categories.tolist()} ordered {table['y'].cat.ordered}")
assert all(t["y"].cat.categories.tolist() == ["low", "mid", "high"] for t in found.values())
ordered = [bool(t["y"].cat.ordered) for t in found.values()]
assert ordered == [False, True, False], "what the two do with an order has changed"
PYTHON
