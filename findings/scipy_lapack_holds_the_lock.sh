#!/usr/bin/env bash
# SciPy 1.17.1 calls LAPACK and BLAS with Python's lock held, by f2py's wrappers and by the C++ that
# scipy.linalg.inv and solve have had since 1.17: no other Python thread moves until the call is done, be it
# half a second. NumPy's functions of the same names release the lock. So two threads that factorise by SciPy
# take the time of one, with cores idle, and a heartbeat, a progress bar or an event loop stops meanwhile.
#
# A thread wakes every 2 ms; its longest sleep is compared with the time of the call beside it, and the calls
# are of .3 s and more. With Python 3.11, NumPy 2.4.6, SciPy 1.17.1 (OpenBLAS of their wheels, one thread):
#   scipy.linalg.lapack.dpotrf: holds the lock
#   scipy.linalg.cholesky: holds the lock
#   scipy.linalg.cho_solve: holds the lock
#   scipy.linalg.eigh: holds the lock
#   scipy.linalg.blas.dgemm: holds the lock
#   scipy.linalg.inv: holds the lock
#   scipy.linalg.solve: holds the lock
#   numpy.linalg.cholesky: releases it
#   numpy.linalg.eigh: releases it
#   numpy.matmul: releases it
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    numpy==2.4.6 scipy==1.17.1
OPENBLAS_NUM_THREADS=1 "$folder/venv/bin/python" - <<'PYTHON'
import threading
import time

import numpy as np
from scipy import linalg


def share(call):
    """The longest sleep of another thread, as a share of the call's time."""
    sleeps, done = [], threading.Event()

    def beat():
        last = time.perf_counter()
        while not done.is_set():
            time.sleep(0.002)
            now = time.perf_counter()
            sleeps.append(now - last)
            last = now

    other = threading.Thread(target=beat)
    other.start()
    time.sleep(0.02)
    start = time.perf_counter()
    call()
    took = time.perf_counter() - start
    done.set()
    other.join()
    return max(sleeps) / took


large, small = (np.asfortranarray(n * np.eye(n) + 1.0) for n in (4000, 1500))
factor = linalg.cho_factor(large, lower=True)
held = {
    "scipy.linalg.lapack.dpotrf": lambda: linalg.lapack.dpotrf(large, lower=1),
    "scipy.linalg.cholesky": lambda: linalg.cholesky(large, lower=True),
    "scipy.linalg.cho_solve": lambda: linalg.cho_solve(factor, large[:, :2000]),
    "scipy.linalg.eigh": lambda: linalg.eigh(small),
    "scipy.linalg.blas.dgemm": lambda: linalg.blas.dgemm(1.0, large, large[:, :1000]),
    "scipy.linalg.inv": lambda: linalg.inv(small + np.triu(small)),
    "scipy.linalg.solve": lambda: linalg.solve(large + np.triu(large), large[:, :10]),
}
released = {
    "numpy.linalg.cholesky": lambda: np.linalg.cholesky(large),
    "numpy.linalg.eigh": lambda: np.linalg.eigh(small),
    "numpy.matmul": lambda: np.matmul(large, large[:, :1000]),
}
for calls, most, what in ((held, max, "holds the lock"), (released, min, "releases it")):
    for name, call in calls.items():
        # Some of a call is copies, and another process may take the core for a while.
        found = most(share(call) for _ in range(3))
        print(f"{name}: {'holds the lock' if found > 0.4 else 'releases it'}")
        assert (found > 0.4) == (calls is held), f"{name}: {found:.2f} of the call, it {what}"
PYTHON
