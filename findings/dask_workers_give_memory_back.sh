#!/usr/bin/env bash
# Dask's nanny starts workers with MALLOC_TRIM_THRESHOLD_=65536, so that they give freed memory back
# to the system. With that glibc also ends to raise M_MMAP_THRESHOLD (mallopt(3): any of the limits,
# once set, turns the adjustment off), and every array of more than 128 kB is new memory of the
# system's, which takes a page fault every 4 kB: NumPy's sums over blocks of rows took twice as long
# on a worker as in a plain process, and two threads of a worker no less than one. The documentation
# has the setting for memory that is not given back, and does not speak of time. sklmm sets both
# limits in the processes that it works in (`keep_freed_memory`).
#
# Seen with Python 3.11, distributed 2026.8.0, numpy 2.4.6, glibc, page faults of 20 arrays of 8 MB,
# one after another: 8,420 on a worker (39,000 where the system has no huge pages), 0 in a process
# without the setting that has freed a large array before.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    dask==2026.8.0 distributed==2026.8.0 numpy==2.4.6
cat > "$folder/faults.py" <<'PYTHON'
import resource

import numpy as np
from distributed import Client, LocalCluster


def faults():
    # What glibc takes as a sign to keep arrays of this size.
    np.empty(30 << 20, np.uint8)
    for _ in range(2):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(20):
            np.ones(10**6)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


if __name__ == "__main__":
    known = {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": ":0"}
    with LocalCluster(**known) as cluster, Client(cluster) as client:
        worker, here = client.submit(faults).result(), faults()
    print("page faults on a worker:", worker, " in this process:", here)
    assert worker > 5000 > here, "what workers do with freed memory has changed"
PYTHON
"$folder/venv/bin/python" "$folder/faults.py"
