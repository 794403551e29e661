#!/usr/bin/env bash
# Temporary arrays of NumPy on glibc, of 128 kB to some megabytes, are new memory each time: every operation
# pays a page fault for each 4 kB that it writes, however often the same arrays have been made and freed
# before. One larger array that was once made and freed, though nobody ever wrote to it, ends that for the
# rest of the process: glibc keeps as much of what is freed as the largest block that it has seen freed, up
# to 32 MB (mallopt(3), M_MMAP_THRESHOLD, M_TRIM_THRESHOLD). So the same loop takes another time by what ran
# before it: fits of some seconds spent a third of theirs in the kernel.
#
# Counted by the process's minor faults, not by time: 20 temporaries are made and freed together, 50 times,
# and the faults are those of one time. With Python 3.11, NumPy 2.4.6, glibc 2.36, x86-64, pages of 4 kB:
#   20 x 512 kB: 2529 faults of 2560 pages
#   20 x 2048 kB: 10209 faults of 10240 pages
#   after np.empty(30 << 20) was freed, 20 x 512 kB: 0 faults of 2560 pages
#   after np.empty(30 << 20) was freed, 20 x 2048 kB: 0 faults of 10240 pages
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check numpy==2.4.6
seen() {
    "$folder/venv/bin/python" - "$@" <<'PYTHON'
import platform
import resource
import sys

import numpy as np

AT_ONCE, TIMES = 20, 50
kept = sys.argv[1] == "kept"
if kept:
    np.empty(30 << 20, np.uint8)


def faults(size):
    """Minor faults for each time that so many temporaries of that size [kB] are made and freed."""
    source = np.ones(size << 8, np.float32)

    def once():
        return len([source * 2 for _ in range(AT_ONCE)])

    once(), once()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(TIMES):
        once()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / TIMES


print(f"NumPy {np.__version__}, {' '.join(platform.libc_ver())}")
for size in (512, 2048):
    found, pages = faults(size), AT_ONCE * size / 4
    before = "after np.empty(30 << 20) was freed, " * kept
    print(f"  {before}{AT_ONCE} x {size} kB: {found:.0f} faults of {pages:.0f} pages")
    assert (found > 0.4 * pages) != kept, f"what is freed is kept, or not: {found} of {pages}"
PYTHON
}
seen fresh
seen kept
