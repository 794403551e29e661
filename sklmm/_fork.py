"""TensorFlow in a forked process: its threads are not there, and what waits for them never ends."""

import os

#: Process in which TensorFlow was first used, or None.
_user = None


def check_not_forked(what):
    """Note that `what` uses TensorFlow here; RuntimeError where a parent process did before."""
    global _user
    if _user is None:
        _user = os.getpid()
    if _user != os.getpid():
        raise RuntimeError(
            f"{what} needs TensorFlow, which was used before this process was forked and would "
            "hang in it: start processes by joblib's 'loky' backend (n_jobs of scikit-learn's "
            "tools), or by multiprocessing.get_context('spawn')."
        )
