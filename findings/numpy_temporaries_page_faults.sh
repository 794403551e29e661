#!/usr/bin/env bash
# Temporary arrays of NumPy on glibc, of 128 kB to some megabytes, are new memory each time: every operation
# pays a page fault for each 4 kB that it writes, however often the same arrays have been made and freed
# before. One larger array that was once made and freed, though nobody ever wrote to it, ends that for the
# rest of the process, in other threads too: glibc keeps as much of what is freed as the largest block that
# it has seen freed, up to 32 MB (mallopt(3), M_MMAP_THRESHOLD, M_TRIM_THRESHOLD). So the same loop may take
# another time by what ran before it: fits of some seconds spent a third of theirs in the kernel. More than
# 64 MB of such arrays at once fault as before.
#
# Counted by the process's minor faults, not by time. With Python 3.11, NumPy 2.4.6, glibc 2.36, x86-64,
# pages of 4 kB; 20 temporaries at a time, faults for 50 times:
#   20 x  512 kB: 2528 of 2560 pages fault each time in the main thread, 2144 in another
#   20 x 2048 kB: 10208 of 10240 pages fault each time in the main thread, 10208 in another
#   after np.empty(30 << 20) was freed, 20 x  512 kB: 0 and 0
#   after np.empty(30 << 20) was freed, 20 x 2048 kB: 0 and 0
#   after np.empty(30 << 20) was freed, 20 x 4096 kB: 10228 of 20480 pages in the main thread
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
import threading

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


print(f"NumPy {np.__version__}, {' '.join(platform.libc_ver())}", "after a large array" * kept)
for size in (512, 2048, 4096) if kept else (512, 2048):
    found, pages = [faults(size)], AT_ONCE * size / 4
    thread = threading.Thread(target=lambda size=size: found.append(faults(size)))
    thread.start()
    thread.join()
    print(f"{AT_ONCE} x {size} kB: faults {found[0]:.0f} and {found[1]:.0f} of {pages:.0f} pages")
    many = not kept or size > 2048
    assert (found[0] > 0.4 * pages) == many, f"what is freed is kept: {found} of {pages}"
    assert size > 2048 or (found[1] > 0.4 * pages) == many, f"in a thread: {found} of {pages}"
PYTHON
}
seen fresh
seen kept
