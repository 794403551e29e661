"""Write the numbers of many models to a file, and compare another tree's with them.

    python -m tests.frozen write before.npz --quick
    python -m tests.frozen compare before.npz --quick

It takes the sklmm that Python imports: `PYTHONPATH` chooses the tree. Deterministic fits (exact,
cg, laplace) must agree to 1e-8 of a unit (a few that rounding moves more have a tolerance of their
own in `models.py`), fits by sampling (hmc, nuts, adam) within 4 Monte Carlo errors of the
difference; `record.py` says which units. Every model has a line with its worst number, and one that
fails makes the exit status 1. The file is written after every model, so that
a long run may be cut; `--resume` goes on with it. All models take some ten minutes, the quick ones
half a minute.
"""

import argparse
import fnmatch
import os
import sys
import time
import traceback
import warnings
from pathlib import Path

import numpy as np

#: Monte Carlo errors of the difference of two fits.
MOST_ERRORS = 4.0


def fitted(case):
    """(seconds, status, iterations, quantities) of a case, fitted now."""
    from tests.frozen.record import record

    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = case.fit()
        quantities = record(found.model, found.X, found.extra)
    result = found.model.result_
    ended = [result.status.name, str(found.model.n_iter_)]
    return time.perf_counter() - start, ended, quantities


def save(path, kept):
    """Arrays by name, as a whole file or none."""
    part = path.with_name(path.name + ".part")
    with part.open("wb") as stream:
        np.savez_compressed(stream, **kept)
    os.replace(part, path)


def write(path, cases, resume):
    """Fit, and save after every model; 0, or 1 where a fit raised an error."""
    kept = dict(np.load(path)) if resume and path.exists() else {}
    failed = False
    for case in cases:
        if f"{case.name}/ended" in kept:
            continue
        try:
            seconds, ended, quantities = fitted(case)
        except Exception:
            traceback.print_exc()
            print(f"FAIL   {case.name}: not fitted", flush=True)
            failed = True
            continue
        kept[f"{case.name}/ended"] = np.array(ended)
        kept |= {f"{case.name}/{name}": q.array() for name, q in quantities.items()}
        save(path, kept)
        print(f"{seconds:7.1f} s  {case.name}: {', '.join(ended)} iteration(s)", flush=True)
    return int(failed)


def deviations(before, after, tolerance, sampled):
    """Of two arrays [3, k] (values, units, errors), the differences [k] in units and in bounds.

    A difference of 1 in bounds is the largest that passes.
    """
    (old, unit, _), (new, _, _) = before, after
    same = (old == new) | (np.isnan(old) & np.isnan(new))
    with np.errstate(invalid="ignore"):
        gap = np.where(same, 0.0, np.nan_to_num(np.abs(new - old) / unit, nan=np.inf))
    bound = np.full(len(gap), tolerance)
    if sampled:
        bound = np.maximum(bound, MOST_ERRORS * np.hypot(before[2], after[2]) / unit)
    return gap, gap / bound


def compared(case, before, ended, quantities):
    """(whether it passes, the line) of a case, `before` its saved arrays."""
    worst = (-1.0, 0.0, "nothing")
    for name, quantity in quantities.items():
        if name not in before or before[name].shape != quantity.array().shape:
            return False, f"'{name}' is of another shape than before"
        gap, ratio = deviations(before[name], quantity.array(), case.tolerance, case.sampled)
        if len(gap):
            k = int(np.argmax(ratio))
            worst = max(worst, (ratio[k], gap[k], f"{name} [{quantity.names[k]}]"))
    missing = set(before) - set(quantities) - {"ended"}
    if missing:
        return False, f"{sorted(missing)} are missing now"
    ratio, gap, where = worst
    line = f"{gap:.1e} of a unit in {where}" if gap else "equal"
    if case.sampled and gap:
        line += f", {MOST_ERRORS * ratio:.1f} Monte Carlo errors"
    status, n_iter = before["ended"]
    if n_iter != ended[1]:
        line += f"; {n_iter} iterations before, {ended[1]} now"
    if status != ended[0]:
        line += f"; {status} before, {ended[0]} now"
    # Either of them may be the one that has just not stopped yet.
    return ratio <= 1 and (status == ended[0] or case.sampled), line


def compare(path, cases):
    """Fit again and print a line a model; 0, or 1 where one fails."""
    kept, failures, n = np.load(path), 0, 0
    for case in cases:
        prefix = f"{case.name}/"
        before = {k.removeprefix(prefix): kept[k] for k in kept.files if k.startswith(prefix)}
        if not before:
            print(f"absent {case.name}: not in {path}", flush=True)
            continue
        try:
            _, ended, quantities = fitted(case)
            passes, line = compared(case, before, ended, quantities)
        except Exception:
            traceback.print_exc()
            passes, line = False, "not fitted"
        n, failures = n + 1, failures + (not passes)
        print(f"{'ok' if passes else 'FAIL':6} {case.name}: {line}", flush=True)
    print(f"{n} models, {failures} failed", flush=True)
    return int(failures > 0 or n == 0)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=["write", "compare", "list"])
    parser.add_argument("file", type=Path, nargs="?")
    parser.add_argument("--quick", action="store_true", help="models of a few seconds")
    parser.add_argument("--only", nargs="+", help="patterns of names, such as '*laplace'")
    parser.add_argument("--resume", action="store_true", help="go on with a file that was cut")
    args = parser.parse_args()
    if args.file is None and args.action != "list":
        parser.error(f"{args.action}: name the file")

    import sklmm
    from tests.frozen.models import CASES

    cases = [c for c in CASES.values() if c.quick or not args.quick]
    if args.only:
        cases = [c for c in cases if any(fnmatch.fnmatch(c.name, p) for p in args.only)]
    print(f"{len(cases)} models by {Path(sklmm.__file__).parent}", flush=True)
    if args.action == "list":
        print(*(c.name for c in cases), sep="\n")
        return 0
    if args.action == "write":
        return write(args.file, cases, args.resume)
    return compare(args.file, cases)


if __name__ == "__main__":
    sys.exit(main())
