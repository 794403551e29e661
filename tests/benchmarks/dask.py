"""Time a fit on a Dask cluster of this machine beside the fit in memory.

    python -m tests.benchmarks.dask --tables /tmp/tables --workers 1 2

The table is a folder of Parquet files, of 10^7 rows with 60,000 and 20,000 levels, or another one
of `tables.py`. Each run is a process of its own, which starts a `LocalCluster` of single-threaded
worker processes before the clock does; all read the files and fit, "first" and "second" time. They
take turns. "memory" is the peak of the process, which with a cluster is the client's and the
scheduler's; "workers" those of the worker processes. "cpu" are the processors' seconds of all
processes in the second fit.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from tests.benchmarks.processes import ROOT
from tests.benchmarks.tables import path_of
from tests.benchmarks.worker import peak, sds

TERMS = ["g0", "g1"]
FIXED = ["x0"]


def in_memory(path):
    """Two fits of a table that this process reads."""
    import pandas as pd

    from sklmm import MixedEffectsRegressor

    def fit():
        table = pd.read_parquet(path)
        model = MixedEffectsRegressor(TERMS, fixed_effects=FIXED, random_state=0)
        return model.fit(table[[*TERMS, *FIXED]], table["y"])

    return timed(fit, time.process_time) | {"memory": peak(), "workers": []}


def on_workers(path, n):
    """Two fits of a table that n worker processes read."""
    import dask.dataframe as dd
    from distributed import Client, LocalCluster

    from sklmm.dask import DaskMixedEffectsRegressor

    def fit():
        table = dd.read_parquet(path)
        model = DaskMixedEffectsRegressor(TERMS, fixed_effects=FIXED, random_state=0)
        return model.fit(table[[*TERMS, *FIXED]], table["y"])

    with (
        LocalCluster(n_workers=n, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        # As in this process sklmm is there before the clock starts.
        client.run(prepared)

        def seconds():
            return time.process_time() + sum(client.run(time.process_time).values())

        found = timed(fit, seconds)
        return found | {"memory": peak(), "workers": list(client.run(peak).values())}


def prepared():
    """Import what a fit takes."""
    import sklmm.dask  # noqa: F401


def timed(fit, seconds):
    """{first, second: seconds of two fits, cpu: of the processors in the second, estimates}."""
    start = time.perf_counter()
    fit()
    middle, before = time.perf_counter(), seconds()
    begun = time.perf_counter()
    model = fit()
    found = {"first": middle - start, "second": time.perf_counter() - begun}
    return found | {"cpu": seconds() - before, "estimates": sds(model).tolist()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tables", type=Path, default=Path(tempfile.gettempdir()) / "sklmm-tables")
    parser.add_argument("--table", default="crossed-1e7.parquet")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--run", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    path = path_of(asked.table, asked.tables, sys.executable)
    if asked.run is not None:
        print(json.dumps(on_workers(path, asked.run) if asked.run else in_memory(path)))
        return
    runs = {n: [] for n in [0, *asked.workers]}
    given = ["--tables", str(asked.tables), "--table", asked.table]
    for _ in range(asked.repeats):
        for n, results in runs.items():
            command = [sys.executable, "-m", "tests.benchmarks.dask", *given, "--run", str(n)]
            done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
            results.append(json.loads(done.stdout.splitlines()[-1]))
            print(n, {k: v for k, v in results[-1].items() if k != "estimates"}, flush=True)
    print(f"{'workers':>10} {'first':>7} {'second':>7} {'cpu':>7} {'memory':>7}  workers' memory")
    for n, results in runs.items():
        cells = [median(r[k] for r in results) for k in ("first", "second", "cpu", "memory")]
        largest = [max(each) for each in zip(*(r["workers"] for r in results), strict=True)]
        shown = " ".join(f"{value:.2f}" for value in largest)
        print(f"{n or 'in memory':>10} " + " ".join(f"{c:7.2f}" for c in cells) + f"  {shown}")


if __name__ == "__main__":
    main()
