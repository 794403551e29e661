"""Runs, each in a process of its own that is timed from outside."""

import compileall
import json
import math
import os
import shutil
import subprocess
import sys
import time
from dataclasses import asdict
from functools import cache
from pathlib import Path
from statistics import median

from tests.benchmarks.tables import csv_of

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
R = ("lme4", "glmmtmb")
#: What sklmm does.
OURS = ("sklmm", "in-memory", "tutorial")
#: What is measured: seconds of the process with one task, of that and of a second one, and the peak
#: in GB; and processor's seconds of the three.
MEASURES = ("process", "first", "second", "memory", "process cpu", "first cpu", "second cpu")


def version(system, python):
    """The system's version, None where it is not installed."""
    if system in R:
        package = {"glmmtmb": "glmmTMB"}.get(system, system)
        command = ["Rscript", "-e", f'cat(as.character(packageVersion("{package}")))']
    else:
        name = "sklmm" if system in OURS else system
        code = f"import importlib.metadata as m; print(m.version('{name}'))"
        command = [python, "-c", code]
    if shutil.which(command[0]) is None:
        return None
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    return done.stdout.split()[-1] if done.returncode == 0 and done.stdout else None


@cache
def compiled(tree):
    """Leave the bytecode of a checkout's sklmm, as an installed package has it."""
    compileall.compile_dir(tree / "sklmm", quiet=1)


def run(system, workload, table, python=sys.executable, tree=ROOT):
    """({measure: value}, estimates) of a system on the table, with the sklmm of a checkout."""
    if system in R:
        asked = [system, workload.family, workload.task, workload.term]
        command = ["Rscript", str(HERE / "systems.R"), *asked, str(csv_of(table))]
    else:
        compiled(Path(tree))
        asked = [system, json.dumps(asdict(workload)), str(table), str(tree)]
        command = [python, str(HERE / "worker.py"), *asked]
    start, before = time.perf_counter(), os.times()
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    seconds, after = time.perf_counter() - start, os.times()
    lines = [line for line in done.stdout.splitlines() if "RESULT " in line]
    if done.returncode or not lines:
        raise RuntimeError(f"{' '.join(command)}:\n{done.stdout}\n{done.stderr}")
    found = json.loads(lines[-1].split("RESULT ")[1])
    first, second = found["first"], found["second"] or (math.nan, math.nan)
    cpu = after.children_user + after.children_system
    cpu -= before.children_user + before.children_system
    # As though it had ended after the first task.
    seconds, cpu = seconds - found["rest"][0], cpu - found["rest"][1]
    values = (seconds, first[0], second[0], found["memory"], cpu, first[1], second[1])
    return dict(zip(MEASURES, values, strict=True)), found["estimates"]


def medians(runs):
    """{measure: median} of several runs."""
    return {name: median(values[name] for values, _ in runs) for name in MEASURES}


def number(value):
    """As the tables have it; nothing for nan."""
    return "" if math.isnan(value) else f"{value:.3g}" if value < 100 else f"{value:.0f}"


def estimates(runs):
    """Those of the last run, as text."""
    return " ".join(f"{value:.4g}" for value in runs[-1][1])
