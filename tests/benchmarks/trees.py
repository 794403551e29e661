"""Two checkouts in turn on one machine: is the one slower than the other?"""

import tempfile
from statistics import median

from tests.benchmarks.processes import ROOT, run

MEASURES = ("process", "first", "second", "memory", "cpu")


def medians(runs):
    """Of each of `MEASURES`."""
    return [median(getattr(r, name) for r in runs) for name in MEASURES]


def row(name, before, after):
    """Line of the table: before -> after, and in brackets before / after, above 1 where better."""
    cells = [
        f"{old:.3f} -> {new:.3f} ({old / new:.2f})" if old == old else ""
        for old, new in zip(medians(before), medians(after), strict=True)
    ]
    same = before[-1].estimates == after[-1].estimates
    estimates = f"{before[-1].estimates}{'' if same else f' -> {after[-1].estimates}'}"
    return f"| {name} | {' | '.join(cells)} | {len(before)} | {estimates} |"


def compare(workloads, other, repeats):
    """Print a table with a row a workload: sklmm of the checkout `other`, and of this one.

    The two take turns, and each goes first every second time.
    """
    print(f"before: {other}, after: {ROOT}; in brackets before / after")
    print(f"| workload | {' | '.join(MEASURES)} | runs | SDs, or scores |")
    print("|---" * (len(MEASURES) + 3) + "|", flush=True)
    for workload in workloads:
        runs = {other: [], ROOT: []}
        with tempfile.TemporaryDirectory() as folder:
            workload.write(folder)
            for repeat in range(repeats):
                for tree in [other, ROOT][:: 1 if repeat % 2 == 0 else -1]:
                    runs[tree].append(run("sklmm", workload, folder, tree=tree))
        print(row(workload.name, runs[other], runs[ROOT]), flush=True)
