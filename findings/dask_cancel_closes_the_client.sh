#!/usr/bin/env bash
# `Client.cancel` of a future on which a task depends that no client holds (its future was released,
# or it was never one's: a task within a graph) fails in the scheduler: "assert ts.who_wants", in
# `stimulus_cancel`, which goes on to dependents whether clients want them or not. The handler of the
# client's stream ends with it, and with that the client is gone from the scheduler and all that it
# holds, other futures too, until it connects again. The documentation says that dependents are
# cancelled. To release the futures does what was meant: the scheduler forgets what nobody wants.
# sklmm.dask releases.
#
# Seen with Python 3.11, dask and distributed 2026.8.0: "Exception while handling op register-client",
# "AssertionError"; a future that has nothing to do with it is gone.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    dask==2026.8.0 distributed==2026.8.0
cat > "$folder/cancel.py" <<'PYTHON'
import time

from distributed import Client, LocalCluster


def slow(x):
    time.sleep(1)
    return x


if __name__ == "__main__":
    known = {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": ":0"}
    with LocalCluster(**known) as cluster, Client(cluster) as client:
        other = client.submit(float, key="other")
        one = client.submit(int, key="one")
        two = client.submit(slow, one, key="two")
        three = client.submit(slow, two, key="three")
        two.release()
        time.sleep(0.2)
        client.cancel([one, three])
        time.sleep(0.2)
        held = sorted(cluster.scheduler.tasks)
        print("the scheduler has:", held, " another future is", other.status)
PYTHON
"$folder/venv/bin/python" "$folder/cancel.py" > "$folder/out" 2>&1
grep -m 1 "the scheduler has" "$folder/out"
grep -q "assert ts.who_wants" "$folder/out" || { echo "cancel has changed"; exit 1; }
echo "the scheduler's handler of the client failed: assert ts.who_wants"
