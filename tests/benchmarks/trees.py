"""Two checkouts in turn on one machine: is the one slower than the other?"""

from tests.benchmarks.processes import MEASURES, ROOT, estimates, medians, number, run


def row(name, before, after):
    """Line of the table: before -> after, and in brackets after / before, below 1 where better."""
    old, new = medians(before), medians(after)
    cells = [
        f"{number(old[m])} -> {number(new[m])} ({new[m] / old[m]:.2f})" if old[m] == old[m] else ""
        for m in MEASURES
    ]
    same = estimates(before) == estimates(after)
    found = f"{estimates(before)}{'' if same else f' -> {estimates(after)}'}"
    return f"| {name} | {' | '.join(cells)} | {len(before)} | {found} |"


def compare(workloads, other, tables, most):
    """Print a table with a row a workload: sklmm of the checkout `other`, and of this one.

    The two take turns, and each goes first every second time. `tables` gives a workload's, and
    `most` is the most runs of each.
    """
    print(f"before: {other}, after: {ROOT}; in brackets after / before")
    print(f"| workload | {' | '.join(MEASURES)} | runs | SDs, or scores |")
    print("|---" * (len(MEASURES) + 3) + "|", flush=True)
    for workload in workloads:
        runs, table = {other: [], ROOT: []}, tables(workload)
        for repeat in range(min(workload.repeats, most)) if table else ():
            for tree in [other, ROOT][:: 1 if repeat % 2 == 0 else -1]:
                runs[tree].append(run("sklmm", workload, table, tree=tree))
        if table:
            print(row(workload.name, runs[other], runs[ROOT]), flush=True)
