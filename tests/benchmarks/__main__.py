"""Time sklmm beside what is installed, and write docs/benchmarks.md.

    python -m venv /tmp/peers && /tmp/peers/bin/pip install gpboost statsmodels
    apt-get install r-cran-lme4 r-cran-glmmtmb
    python -m tests.benchmarks --peers-python /tmp/peers/bin/python

Each run is a process of its own: "process" is its whole time, "first" and "second" those of two
fits (or cross-validations, or predictions) in it, "memory" its peak. The systems of a workload take
turns; the table has medians and ratios to sklmm's. The rows of 10^7 and more take minutes and
gigabytes; with `--workloads`, the others keep their rows. Leave the machine alone meanwhile.
"""

import argparse
import datetime
import math
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np

from tests.benchmarks.systems import R_FIT, r_script, work
from tests.benchmarks.workloads import WORKLOADS

ROOT = Path(__file__).parents[2]
#: Systems that are not fitted a second time.
ONE_FIT = (*R_FIT, "tutorial")
LARGE = ("crossed-1e7", "crossed-3.2e7")


def version(system, python):
    """The system's version, None where it is not installed."""
    if system in R_FIT:
        package = {"glmmtmb": "glmmTMB"}.get(system, system)
        command = ["Rscript", "-e", f'cat(as.character(packageVersion("{package}")))']
    else:
        name = "sklmm" if system == "tutorial" else system
        command = [python, "-c", f"import {name}; print({name}.__version__)"]
    if shutil.which(command[0]) is None:
        return None
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    return done.stdout.split()[-1] if done.returncode == 0 and done.stdout else None


def run(system, workload, python, folder):
    """(process s, first s, second s, peak GB, estimates) of one process."""
    if system in R_FIT:
        slopes = "slopes" if workload.slopes else "intercepts"
        command = ["Rscript", str(r_script(system, folder)), f"{folder}/data.csv", slopes]
    else:
        command = [python, "-m", "tests.benchmarks", "--worker", system, workload.name]
        command += [f"{folder}/data.npz"]
    out = Path(folder) / "out.txt"
    start = time.perf_counter()
    with out.open("w") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, cwd=ROOT)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = status
    seconds = time.perf_counter() - start
    lines = [line for line in out.read_text().splitlines() if "RESULT " in line]
    if status or not lines:
        raise RuntimeError(f"{' '.join(command)}:\n{out.read_text()}")
    first, second, *values = lines[-1].split("RESULT ")[1].split()
    return seconds, float(first), float(second), usage.ru_maxrss / 1e6, " ".join(values)


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
            f"{results[system][-1][4]} |"
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
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        system, name, path = args.worker
        return work(system, WORKLOADS[name], path, system not in ONE_FIT and name not in LARGE)

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
                    runs.append(run(system, workload, python_of(system), folder))
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
