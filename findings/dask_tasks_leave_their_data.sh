#!/usr/bin/env bash
# Tasks that are submitted one after another, each on one future, are not done where that future is,
# though all workers are idle: Dask takes those of one key prefix, `total-0`, `total-1`, ..., for root
# tasks once they are more than twice the threads ("rootish": whose dependencies are fewer than 5 in
# all), and gives them to any worker. What they depend on is copied there. The documentation, and
# `decide_worker`, say that a task goes to the worker that has its data. A key that is a tuple,
# ("total-0", 0), makes each task a group of its own, and they stay; so do restrictions to workers,
# loose ones too. sklmm.dask's tasks on shards of rows have such keys: before, shards of a table went
# to and fro, and sums over copies, whose arrays are laid out otherwise, differed in the last digit.
#
# Seen with Python 3.11, dask and distributed 2026.8.0, two workers, an array of 80 MB on one of them:
#   keys total-0, total-1, ...: of 12 tasks 4 where the array is, or all, by which worker has it
#   keys (total-0, 0), ...:     12 of 12
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    dask==2026.8.0 distributed==2026.8.0 numpy==2.4.6
cat > "$folder/tasks.py" <<'PYTHON'
import numpy as np
from distributed import Client, LocalCluster, get_worker, wait


def total(part):
    return get_worker().address, float(part.sum())


def tasks(client, home, alone):
    """How many of 12 tasks are done where their data are."""
    part = client.submit(np.ones, 10_000_000, workers=[home], pure=False)
    wait(part)
    there, held = 0, None
    for i in range(12):
        key = f"total-{i}" if not alone else (f"alone-{home}-{i}", 0)
        held = client.submit(total, part, key=key, pure=False)
        there += held.result()[0] == home
    return there


if __name__ == "__main__":
    known = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": ":0"}
    with LocalCluster(**known) as cluster, Client(cluster) as client:
        homes = list(client.nthreads())
        alone = [tasks(client, home, True) for home in homes]
        grouped = [tasks(client, home, False) for home in homes]
    print("groups of their own:", alone, " one group:", grouped)
    assert alone == [12, 12] and min(grouped) < 12, "where Dask has tasks done has changed"
PYTHON
"$folder/venv/bin/python" "$folder/tasks.py"
