"""Sizes that tables and terms are padded to, so that compiled steps serve many of them."""

import numpy as np


def bucket(n):
    """The next of a geometric row of sizes, at most an eighth above `n` (and at least 16)."""
    step = max(16, 1 << max(int(n).bit_length() - 4, 0))
    return -(-int(n) // step) * step


def pad(array, length):
    """`array` with zero rows up to `length`."""
    missing = length - len(array)
    return np.pad(array, [(0, missing)] + [(0, 0)] * (array.ndim - 1)) if missing else array
