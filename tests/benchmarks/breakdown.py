"""Where the time of a logistic fit goes, and how far that is from the machine's limit.

    python -m tests.benchmarks.breakdown --workloads insteval-logistic logistic-1e6

A thread looks every millisecond at which module the fit is in: the innermost one of sklmm's, in the
thread that called it. Then the passes over the rows: whatever the algorithm does with a row, it
must read the row's levels, columns and response, four bytes each. The passes' bytes over the
bandwidth at which this machine reads memory are the seconds that no implementation of the same
passes could do without, on a table too large for the caches.
"""

import argparse
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from tests.benchmarks.tables import path_of
from tests.benchmarks.worker import sklmm, timed
from tests.benchmarks.workloads import WORKLOADS


@contextmanager
def watched(every=0.001):
    """Seconds that this thread spends in each module of sklmm, by samples of its stack."""
    seconds, this, done = Counter(), threading.get_ident(), threading.Event()

    def look():
        last = time.perf_counter()
        while not done.wait(every):
            frame = sys._current_frames().get(this)
            while frame and not told(frame.f_globals.get("__name__", "")):
                frame = frame.f_back
            now = time.perf_counter()
            seconds[frame.f_globals["__name__"] if frame else "elsewhere"] += now - last
            last = now

    def told(name):
        # Who waits for threads waits for what they do.
        return name.startswith("sklmm.") and name != "sklmm._threads"

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield seconds
    finally:
        done.set()
        watcher.join()


@contextmanager
def counted():
    """Passes over rows by the number of predictors that they make at once: (passes, seconds)."""
    from sklmm.engine.rows.blocked import Passes

    passes, run = {}, Passes.run

    def count(self, X, offset, coefs, *args, **kwargs):
        spent, found = timed(lambda: run(self, X, offset, coefs, *args, **kwargs))
        columns = 0 if coefs is None else coefs.beta.shape[1]
        n, seconds = passes.get(columns, (0, 0.0))
        passes[columns] = n + 1, seconds + spent[0]
        return found

    Passes.run = count
    try:
        yield passes
    finally:
        Passes.run = run


def bandwidth(size=2**29, repeats=5):
    """Bytes a second at which all cores together read memory."""
    from sklmm._threads import in_threads, n_threads

    parts = np.array_split(np.ones(size // 8), 4 * n_threads())
    return size / min(timed(lambda: in_threads(np.sum, parts))[0][0] for _ in range(repeats))


def table(head, rows):
    """Lines of a Markdown table."""
    return "\n".join(
        f"| {' | '.join(map(str, row))} |" for row in [head, ["---"] * len(head), *rows]
    )


def report(workload, path, read):
    """Print the breakdown of the second of two fits; `read` is the bandwidth."""
    data = dict(np.load(path))
    fit, _, _ = sklmm(data, workload)
    fit()
    with watched() as seconds, counted() as passes:
        (wall, cpu), model = timed(fit)
    n, width = len(data["y"]), 4 * (data["groups"].shape[1] + data["columns"].shape[1] + 1)
    print(
        f"\n### {workload.name}\n\n{n:,} rows, {model.n_iter_} iterations: {wall:.2f} s, of the "
        f"processors {cpu:.2f} s.\n"
    )
    total = sum(seconds.values())
    shares = [
        (f"`{name.removeprefix('sklmm.')}`", f"{s:.2f}", f"{s / total:.0%}")
        for name, s in seconds.most_common()
        if s > 0.01 * total
    ]
    print(table(["module", "seconds", "share"], shares), "\n")
    rows = [
        (columns, number, f"{spent:.2f}", f"{number * n * width / read:.3f}")
        for columns, (number, spent) in sorted(passes.items())
    ]
    number, spent = (sum(part) for part in zip(*passes.values(), strict=True))
    rows += [("all", number, f"{spent:.2f}", f"{number * n * width / read:.3f}")]
    print(table(["predictors at once", "passes", "seconds", "limit"], rows))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=["insteval-logistic"])
    folder = Path(tempfile.gettempdir()) / "sklmm-benchmarks"
    parser.add_argument("--folder", type=Path, default=folder, help="where the tables are kept")
    args = parser.parse_args()
    read = bandwidth()
    print(f"Memory is read at {read / 1e9:.1f} GB/s.")
    for name in args.workloads:
        workload = WORKLOADS[name]
        report(workload, path_of(workload.table, args.folder, sys.executable), read)


if __name__ == "__main__":
    main()
