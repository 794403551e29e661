"""Time sklmm's MixedEffectsClassifier beside GPBoost on InstEval.

    python3 -m venv /tmp/gpb && /tmp/gpb/bin/pip install gpboost
    python docs/benchmarks/glmm.py --gpboost-python /tmp/gpb/bin/python --repeats 3

Run it by the interpreter that has sklmm; GPBoost may live in another one. Random intercepts of
students, instructors and departments, fixed effects intercept and service:

- gpboost: rating >= 4, bernoulli_logit, default settings
- binary: rating >= 4, sklmm
- ordinal: ratings 1 to 5, sklmm

They take turns, each in a process of its own, which fits twice: "first" is the first fit, "warm"
the second, of a new model object. Loading, imports and the process's start are in neither; GPBoost
gives standard errors and effects on request only, so its times leave them out. ``--models`` runs
some of the three. Leave the machine alone meanwhile.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np

TERMS = ["students", "instructors", "departments"]
MODELS = ["gpboost", "binary", "ordinal"]


def gpboost_worker(data):
    import gpboost

    arrays = np.load(data)
    groups, X, y = arrays["groups"], arrays["X"], arrays["y"]

    def fit():
        model = gpboost.GPModel(group_data=groups, likelihood="bernoulli_logit")
        return model.fit(y, X)

    def estimates(model):
        sd = np.sqrt(np.ravel(model.get_cov_pars(format_pandas=False)))
        coef = np.ravel(model.get_coef(format_pandas=False))
        return {
            **{f"SD {t}": s for t, s in zip(TERMS, sd, strict=True)},
            **dict(zip(["Intercept", "service"], coef, strict=True)),
        }

    return fit, estimates, gpboost.__version__


def sklmm_worker(family):
    import sklmm
    from sklmm.datasets import load_insteval

    X, y = load_insteval(return_X_y=True, as_frame=True)
    options = {} if family == "binary" else {"family": family}
    target = y >= 4 if family == "binary" else y

    def fit():
        model = sklmm.MixedEffectsClassifier(
            TERMS, fixed_effects=["service"], random_state=0, **options
        )
        return model.fit(X, target)

    def estimates(model):
        out = {f"SD {r.group}": r.sd for r in model.variance_components_.itertuples()}
        out |= model.fixed_effects_["estimate"].to_dict()
        for name, value in model.family_params_.items():  # thresholds
            try:
                values = np.ravel(np.asarray(value, dtype=float))
            except (TypeError, ValueError):
                continue
            out |= {f"{name}[{i}]": v for i, v in enumerate(values)}
        return out

    return fit, estimates, sklmm.__version__


def work(name, data, out):
    fit, estimates, version = gpboost_worker(data) if name == "gpboost" else sklmm_worker(name)
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        model = fit()
        seconds.append(time.perf_counter() - start)
    result = {
        "first": seconds[0],
        "warm": seconds[1],
        "estimates": {k: float(v) for k, v in estimates(model).items()},
        "version": version,
    }
    Path(out).write_text(json.dumps(result))


def run(name, python, folder):
    """One process's result; its output is shown only if it fails."""
    out = folder / "result.json"
    out.unlink(missing_ok=True)
    command = [python, __file__, "--worker", name, str(folder / "data.npz"), str(out)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}")
    return json.loads(out.read_text())


def write_data(path):
    from sklmm.datasets import load_insteval

    X, y = load_insteval(return_X_y=True, as_frame=True)
    fixed = np.column_stack([np.ones(len(X)), X["service"]])
    np.savez(path, groups=X[TERMS].to_numpy(), X=fixed, y=(y >= 4).to_numpy(float))


def table(head, rows):
    rows = [head, *rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *rest in rows:
        cells = [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
        print("  ".join([first.ljust(widths[0]), *cells]))
    print()


def report(results):
    versions = ", ".join(
        f"{'gpboost' if name == 'gpboost' else 'sklmm'} {runs[0]['version']}"
        for name, runs in results.items()
        if name != "ordinal" or "binary" not in results
    )
    print(f"\nPython {platform.python_version()}, {os.cpu_count()} cores; {versions}\n")

    warm = {name: median(r["warm"] for r in runs) for name, runs in results.items()}
    base = warm.get("gpboost")
    table(
        ["seconds", "first", "warm", "ratio", "warm, each"],
        [
            [
                name,
                f"{median(r['first'] for r in runs):.2f}",
                f"{warm[name]:.2f}",
                f"{warm[name] / base:.2f}" if base else "",
                " ".join(f"{r['warm']:.2f}" for r in runs),
            ]
            for name, runs in results.items()
        ],
    )
    print("first, warm: medians; ratio: of warm to GPBoost's\n")

    estimates = [runs[-1]["estimates"] for runs in results.values()]
    names = list(dict.fromkeys(name for e in estimates for name in e))
    table(
        ["estimate", *results],
        [[n, *(f"{e[n]:.5f}" if n in e else "" for e in estimates)] for n in names],
    )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gpboost-python", default=sys.executable, help="interpreter with gpboost")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return work(*args.worker)
    if args.repeats < 1:
        parser.error("--repeats must be at least 1")

    results = {name: [] for name in MODELS if name in args.models}
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        write_data(folder / "data.npz")
        for i in range(args.repeats):
            for name, runs in results.items():
                python = args.gpboost_python if name == "gpboost" else sys.executable
                runs.append(run(name, python, folder))
                print(f"{i + 1}/{args.repeats} {name}: {runs[-1]['warm']:.2f} s", flush=True)
    report(results)


if __name__ == "__main__":
    main()
