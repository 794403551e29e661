"""Runs, each in a process of its own that is timed from outside."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from tests.benchmarks.systems import R_FIT, r_script

ROOT = Path(__file__).parents[2]


class Run(NamedTuple):
    """Seconds of the process and of two tasks in it, its peak in GB, CPU seconds, estimates."""

    process: float
    first: float
    second: float
    memory: float
    cpu: float
    estimates: str


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


def run(system, workload, folder, python=sys.executable, tree=ROOT):
    """`Run` of a system on the table in `folder`, with the sklmm of the checkout `tree`."""
    if system in R_FIT:
        command = ["Rscript", str(r_script(system, folder)), f"{folder}/data.csv", workload.term]
    else:
        command = [python, "-m", "tests.benchmarks", "--tree", str(tree)]
        command += ["--worker", system, workload.name, f"{folder}/data.npz"]
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
    cpu = usage.ru_utime + usage.ru_stime
    memory = usage.ru_maxrss / 1e6
    return Run(seconds, float(first), float(second), memory, cpu, " ".join(values))
