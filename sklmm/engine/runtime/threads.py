"""The threads of a process, and how many of the cores are its own."""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import joblib


def n_threads():
    """Cores, or the share that joblib or the user leaves to this process."""
    share = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(share) if share.isdigit() and int(share) > 0 else joblib.cpu_count()


@cache
def threads(pid):
    """The pool of a process: a forked one cannot use its parent's."""
    return ThreadPoolExecutor(n_threads())
