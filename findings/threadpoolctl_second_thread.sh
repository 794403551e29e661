#!/usr/bin/env bash
# threadpoolctl 3.8.0 lets one thread at a time limit the OpenBLAS of NumPy's wheels: the first that sets a
# limit, as long as it lives, until it leaves a `with` block of limits. A limit that another thread asks for
# meanwhile is dropped without a word, in a `with` block as well, and OpenBLAS keeps the first thread's:
# one worker of a living pool that once called threadpool_limits(1) holds the main thread at one core.
# 3.7.0 obeyed whoever asked. The guide of 3.8.0 says so far down; no warning, no return value does.
#
# Read from OpenBLAS's own function, not from threadpoolctl, and checked by the processor time that other
# threads than the caller spend in a product of matrices. With Python 3.11, NumPy 2.4.6, two cores (of one
# core OpenBLAS has one thread, and nothing is left to see):
#   threadpoolctl 3.8.0: a worker asks for 2 after the main thread's 1: 1
#   threadpoolctl 3.8.0: the main thread asks for 2 after a worker's 1: 1, when the pool is gone: 2
#   threadpoolctl 3.7.0: a worker asks for 2 after the main thread's 1: 2
#   threadpoolctl 3.7.0: the main thread asks for 2 after a worker's 1: 2, when the pool is gone: 2
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
seen() {
    "$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
        numpy==2.4.6 "threadpoolctl==$1"
    OPENBLAS_NUM_THREADS=2 "$folder/venv/bin/python" - "${@:2}" <<'PYTHON'
import ctypes
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import threadpoolctl
from threadpoolctl import threadpool_info, threadpool_limits

(blas,) = [ctypes.CDLL(p["filepath"]) for p in threadpool_info() if p["internal_api"] == "openblas"]
matrix = np.random.default_rng(0).normal(size=(1000, 1000))


def threads():
    """OpenBLAS's own number, which the time spent by other threads has to confirm."""
    number = blas.scipy_openblas_get_num_threads64_()
    time.sleep(0.2)  # what still spins goes to sleep
    here, everywhere = time.thread_time(), time.process_time()
    for _ in range(5):
        matrix @ matrix
    here, everywhere = time.thread_time() - here, time.process_time() - everywhere
    assert (here < 0.75 * everywhere) == (number > 1), (number, here, everywhere)
    return number


def in_block(limit):
    with threadpool_limits(limit):
        return threads()


start = threads()
first = threadpool_limits(1)
with ThreadPoolExecutor(1) as pool:
    worker = pool.submit(in_block, 2).result()
first.restore_original_limits()
with threadpool_limits(start):  # at its end nobody holds the limits
    pass
with ThreadPoolExecutor(1) as pool:
    pool.submit(threadpool_limits, 1).result()
    main = in_block(2)
after = in_block(2)
label = f"threadpoolctl {threadpoolctl.__version__}:"
print(label, f"a worker asks for 2 after the main thread's 1: {worker}")
print(label, f"the main thread asks for 2 after a worker's 1: {main}, when the pool is gone: {after}")
found = [start, worker, main, after]
assert found == list(map(int, sys.argv[1:])), f"who may set limits has changed: {found}"
PYTHON
}
seen 3.8.0 2 1 1 2
seen 3.7.0 2 2 2 2
