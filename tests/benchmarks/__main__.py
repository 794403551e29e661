"""Time sklmm beside what is installed, and write docs/benchmarks.md.

    python -m venv /tmp/peers && /tmp/peers/bin/pip install gpboost statsmodels
    apt-get install r-cran-lme4 r-cran-glmmtmb
    python -m tests.benchmarks --peers-python /tmp/peers/bin/python

Each run is a process of its own: "process" is its whole time, "first" and "second" those of two
fits (or cross-validations, or predictions) in it, "memory" its peak. The systems of a workload take
turns; the table has medians and ratios to sklmm's. The rows of 10^7 and more take minutes and
gigabytes; with `--workloads`, the others keep their rows. Leave the machine alone meanwhile.

    python -m tests.benchmarks --against ../before --workloads insteval crossed-1e5

times sklmm alone, that of another checkout and this one in turn, and prints their medians and the
ratios before / after.
"""

import argparse
import datetime
import math
import os
import platform
import sys
import tempfile
from pathlib import Path
from statistics import median

import numpy as np

from tests.benchmarks.processes import ROOT, run, version
from tests.benchmarks.systems import R_FIT, work
from tests.benchmarks.trees import compare
from tests.benchmarks.workloads import WORKLOADS

#: Systems that are not fitted a second time.
ONE_FIT = (*R_FIT, "tutorial")
LARGE = ("crossed-1e7", "crossed-3.2e7")


def rows(name, results, missing):
    """Lines of the table for a workload."""
    out = []
    medians = {
        s: [median(r[i] for r in runs) for i in range(4)] for s, runs in results.items() if runs
    }
    ours = medians.get("sklmm")

    def cell(values, i):
        if math.isnan(values[i]):
            return ""
        ratio = f" ({values[i] / ours[i]:.2f} x)" if ours and values is not ours else ""
        return f"{values[i]:.2f}{ratio}"

    for system, values in medians.items():
        cells = [cell(values, i) for i in range(4)]
        out.append(
            f"| {name} | {system} | {' | '.join(cells)} | {len(results[system])} | "
            f"{results[system][-1].estimates} |"
        )
    out += [f"| {name} | {system} | not installed | | | | | |" for system in missing]
    return out


def growth(lines):
    """Sentence on how sklmm's first fits grow with the rows of `make_crossed`, or None."""
    points = []
    for line in lines:
        cells = [c.strip() for c in line.split("|")]
        if cells[1].startswith("crossed-") and cells[2] == "sklmm":
            points.append((float(cells[1].split("-")[1]), float(cells[4])))
    if len(points) < 2:
        return None
    slope = np.polyfit(*np.log(points).T, 1)[0]
    return f"First fits of `make_crossed` take time in proportion to rows^{slope:.2f}."


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peers-python", default=sys.executable)
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    parser.add_argument("--systems", nargs="+")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--once", nargs="*", default=[], help="systems too slow to repeat")
    parser.add_argument("--out", default="docs/benchmarks.md")
    parser.add_argument("--against", type=Path, help="another checkout of sklmm, to compare with")
    parser.add_argument("--tree", default=str(ROOT), help=argparse.SUPPRESS)
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        # What runs the systems is this checkout's, whichever sklmm they import.
        sys.path.insert(0, args.tree)
        system, name, path = args.worker
        return work(system, WORKLOADS[name], path, system not in ONE_FIT and name not in LARGE)
    if args.against:
        other = args.against.resolve()
        if not (other / "sklmm" / "__init__.py").exists():
            parser.error(f"--against {args.against}: there is no sklmm/ in that folder")
        return compare([WORKLOADS[name] for name in args.workloads], other, args.repeats)

    def python_of(system):
        return sys.executable if system in ("sklmm", "tutorial") else args.peers_python

    # Of all systems: the rows that are kept are theirs too.
    systems = {s for workload in WORKLOADS.values() for s in workload.systems}
    versions = {s: version(s, python_of(s)) for s in sorted(systems)}
    systems = systems & set(args.systems) if args.systems else systems
    out, lines = Path(args.out), {}
    if out.exists():
        # Workloads that are not run again keep their rows.
        for line in out.read_text().splitlines():
            name = line.strip("| ").split(" ")[0]
            if line.startswith("|") and name in WORKLOADS:
                lines.setdefault(name, []).append(line)
    for name in args.workloads:
        workload = WORKLOADS[name]
        wanted = [s for s in workload.systems if s in systems]
        results = {s: [] for s in wanted if versions[s]}
        with tempfile.TemporaryDirectory() as folder:
            workload.write(folder)
            for repeat in range(args.repeats):
                for system, runs in results.items():
                    if repeat and system in args.once:
                        continue
                    runs.append(run(system, workload, folder, python_of(system)))
                    print(name, system, *(f"{v:.2f}" for v in runs[-1][:4]), flush=True)
        lines[name] = rows(name, results, [s for s in wanted if not versions[s]])
        write(out, [line for w in WORKLOADS for line in lines.get(w, [])], versions)
    return None


def write(path, lines, versions):
    """The page, after every workload."""
    installed = ", ".join(f"{s} {v or 'not installed'}" for s, v in versions.items())
    head = [
        "# Benchmarks",
        "",
        "Made by `python -m tests.benchmarks`; its docstring says what is measured. Medians; in",
        "brackets the ratio to sklmm's. Seconds; memory is the process's peak, in GB.",
        "",
        f"{datetime.date.today()}, Python {platform.python_version()}, {os.cpu_count()} cores; "
        f"{installed}.",
        "",
        "| workload | system | process | first | second | memory | runs | SDs, or scores |",
        "|---|---|---|---|---|---|---|---|",
    ]
    tail = ["", sentence] if (sentence := growth(lines)) else []
    path.write_text("\n".join([*head, *lines, *tail, ""]))


if __name__ == "__main__":
    main()
