"""
A table on a cluster: two workers, and the fit of one machine
=============================================================

A million ratings lie in Parquet files. Two worker processes read and sum a part of them each, and
one solves the model; the estimates are those of the table in memory. Then the workers predict, and
the model goes home without Dask.
"""

# %%
# A cluster of this machine
# -------------------------
# Two processes of one thread. On machines of their own it is ``Client("tcp://scheduler:8786")``.
import sys
import tempfile
import time
from pathlib import Path

import dask.dataframe as dd
import matplotlib
import numpy as np
import pandas as pd
from dask.distributed import Client, LocalCluster

if not matplotlib.is_interactive():
    matplotlib.use("Agg")
import matplotlib.pyplot as plt

from sklmm import MixedEffectsRegressor
from sklmm.dask import DaskMixedEffectsRegressor
from sklmm.datasets import make_crossed

figures = Path(sys.argv[0]).resolve().parent / "figures"


def write(folder):
    """A million rows of y = 1 + 0.5 x0 + user + item + noise, in eight files."""
    X, y, _ = make_crossed(1_000_000, (12_000, 3_000), random_state=0)
    table = X.rename(columns={"g0": "user", "g1": "item"}).assign(rating=y)
    for number, rows in enumerate(np.array_split(np.arange(len(table)), 8)):
        table.iloc[rows].to_parquet(folder / f"{number}.parquet", index=False)


def main():
    """Fit by two workers and by this process, and draw the users' effects of both."""
    figures.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp())
    write(folder)
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster),
    ):
        rows = dd.read_parquet(folder)
        X, y = rows.drop(columns="rating"), rows["rating"]
        model = DaskMixedEffectsRegressor(["user", "item"], random_state=0)
        model.fit(X.partitions[:1], y.partitions[:1])  # The workers import what they need.
        start = time.perf_counter()
        model.fit(X, y)
        middle = time.perf_counter()
        # R^2 and predictions are made where the rows are.
        print(f"R^2 {model.score(X, y):.4f}")
        print(model.predict(X).head(3))
    whole = pd.read_parquet(folder)
    again = time.perf_counter()
    local = MixedEffectsRegressor(["user", "item"], random_state=0)
    local.fit(whole.drop(columns="rating"), whole["rating"])
    print(f"two workers {middle - start:.1f} s, in memory {time.perf_counter() - again:.1f} s")

    # The plain model, to be saved and to predict anywhere.
    home = model.to_local()
    sds = {"workers": home.variance_components_["sd"], "memory": local.variance_components_["sd"]}
    print(pd.DataFrame(sds).to_string(float_format="{:.10f}".format))
    first, second = home.random_effects_["user"], local.random_effects_["user"]
    print(f"effects differ by {np.abs(first - second).to_numpy().max():.1e} at most")

    fig, ax = plt.subplots(figsize=(5, 5), layout="constrained")
    ax.plot(second.iloc[::20, 0], first.iloc[::20, 0], ".", ms=3, alpha=0.5)
    ax.axline((0, 0), slope=1, color="C3", lw=1)
    ax.set(xlabel="in memory", ylabel="by two workers", title="Effects of 600 users")
    fig.savefig(figures / "cluster.png", dpi=120)
    print(f"figure in {figures}")


# Worker processes import this file again.
if __name__ == "__main__":
    main()
