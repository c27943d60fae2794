"""Whether other programs took the processor while something was timed.

Linux counts, for every thread, how long it was ready to run and waited for a core. On an idle machine that is next to
nothing; with as many threads as cores beside another busy program, a microsecond of work can wait for the scheduler's
whole time slice.
"""

import os
from typing import NamedTuple

TOLERATED = 0.02  # of a timing: what an idle machine's own background work costs


def waited():
    """Seconds lost so far: what this process's threads have waited for a core, all together, and, in a virtual machine,
    what the host has taken from its cores. 0 where the system does not count them."""
    total = 0.0
    try:
        for thread in os.listdir("/proc/self/task"):
            with open(f"/proc/self/task/{thread}/schedstat") as file:
                total += int(file.read().split()[1]) / 1e9
        with open("/proc/stat") as file:
            total += int(file.readline().split()[8]) / os.sysconf("SC_CLK_TCK")  # "steal"
    except (OSError, IndexError):  # not Linux, or a thread that has just ended
        return 0.0
    return total


class Timing(NamedTuple):
    seconds: float
    disturbed: bool


def timed(call, clock, waited=waited):
    """How long `call()` takes, and whether that was disturbed."""
    before, start = waited(), clock()
    call()
    seconds = clock() - start
    return Timing(seconds, waited() - before > TOLERATED * seconds)
