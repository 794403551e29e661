"""What a Gaussian fit from Parquet files takes by its parts, and what it would take of more rows.

    python -m tests.benchmarks.scale FOLDER --response y --groups g0 g1
    python -m tests.benchmarks.scale FOLDER --rows 1e9 --pairs 8.9e8 --hosts 16 --cores 16

FOLDER holds Parquet files. Their rows are read and summed, the sums joined, and the model solved,
each by one thread; then it is solved by all threads of this machine. These parts go into `seconds`,
the model of docs/scale.md, which is asked about the folder's own rows and about those named.
"""

import argparse
import time
from dataclasses import dataclass

from sklmm import ConjugateGradient, MixedEffectsRegressor
from sklmm._estimators.accumulated import Joining
from sklmm._estimators.parquet import column_names, parquet_files, row_groups
from sklmm._threads import n_threads, sharing

#: Bytes of a pair of levels that travels: how many rows it has, and its place.
PAIR = 5
#: Bytes a second of a network of 10 Gbit/s.
NETWORK = 1.25e9


@dataclass(frozen=True)
class Parts:
    """Seconds of one thread: to read and to sum a row, to join and to solve a pair of levels.

    `alone` is the share of solving in which threads do not help, by Amdahl's law.
    """

    read: float
    sum: float
    join: float
    solve: float
    alone: float


def seconds(parts, rows, pairs, hosts, cores):
    """Of rows, joins, the network and the solving, in a fit by `hosts` of so many `cores` each.

    Reading, sums and joins are shared out. Pairs travel to the host that solves.
    """
    every = hosts * cores
    return {
        "rows": rows * (parts.read + parts.sum) / every,
        "joins": pairs * parts.join / every,
        "network": PAIR * pairs * (1 - 1 / hosts) / NETWORK,
        "solving": pairs * parts.solve * (parts.alone + (1 - parts.alone) / cores),
    }


def measured(folder, response, groups):
    """(Parts, rows, pairs) of the files of a folder."""
    names = [n for n in column_names(parquet_files(folder)[0]) if n != response]
    model = MixedEffectsRegressor(groups, e_step=ConjugateGradient(), random_state=0)
    n, spent, joining, head = 0, {"read": 0.0, "sum": 0.0, "join": 0.0}, Joining(), None
    last = time.perf_counter()

    def clock(part):
        nonlocal last
        now = time.perf_counter()
        spent[part] += now - last
        last = now

    with sharing(1):
        for file in parquet_files(folder):
            for _, table in row_groups(file, [*names, response]):
                clock("read")
                part, _ = model._part(head, table.drop(columns=response), table[response])
                head, n = part.head, n + len(table)
                clock("sum")
                joining.add(part)
                clock("join")
        sums = joining.joined()
        clock("join")
        pairs = sum(block.nnz for own in sums.statistics.pairs for block in own.blocks)
        one = solved(model, sums)
    threads = n_threads()
    # Of Amdahl's law, gain = 1 / (alone + (1 - alone) / threads).
    share = solved(model, sums) / one
    alone = min(max((share - 1 / threads) / (1 - 1 / threads), 0.0), 1.0) if threads > 1 else 1.0
    parts = Parts(spent["read"] / n, spent["sum"] / n, spent["join"] / pairs, one / pairs, alone)
    return parts, n, pairs


def solved(model, sums):
    """Seconds of solving a model."""
    start = time.perf_counter()
    model._solve(sums, None, False)
    return time.perf_counter() - start


def main():
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--response", default="y")
    parser.add_argument("--groups", nargs="+", default=["g0", "g1"])
    parser.add_argument("--rows", type=float)
    parser.add_argument("--pairs", type=float)
    parser.add_argument("--hosts", type=int, default=1)
    parser.add_argument("--cores", type=int, default=n_threads())
    options = parser.parse_args()
    parts, rows, pairs = measured(options.folder, options.response, options.groups)
    for name, unit in (("read", "row"), ("sum", "row"), ("join", "pair"), ("solve", "pair")):
        print(f"{name} {1e6 * getattr(parts, name):.3f} microseconds a {unit}")
    print(f"alone {parts.alone:.2f} of solving, by {n_threads()} threads")
    cases = [(rows, pairs, 1, 1), (rows, pairs, 1, n_threads())]
    if options.rows:
        cases.append((options.rows, options.pairs or options.rows, options.hosts, options.cores))
    for case in cases:
        found = seconds(parts, *case)
        shown = ", ".join(f"{name} {own:.1f}" for name, own in found.items())
        print("{:.3g} rows, {:.3g} pairs, {} x {} cores:".format(*case), end=" ")
        print(f"{sum(found.values()):.1f} s ({shown})")


if __name__ == "__main__":
    main()
