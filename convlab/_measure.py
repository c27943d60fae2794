"""What the summary, the doctor and the benchmark measure with: a time, and whether other programs took the processor
meanwhile; an error.

Linux counts, for every thread, how long it was ready to run and waited for a core. On an idle machine that is next to
nothing; with as many threads as cores beside another busy program, a microsecond of work can wait for the scheduler's
whole time slice.
"""

import os
import resource
import time
from typing import NamedTuple

import torch

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
    """faults: pages that the system lent the process meanwhile. A fresh page costs as much as copying some of them, so
    that memory that is taken and given back in every call can take longer than the work."""

    seconds: float
    disturbed: bool
    faults: int = 0


def timed(call, clock, waited=waited):
    """How long `call()` takes, and whether that was disturbed."""
    faults, before, start = page_faults(), waited(), clock()
    call()
    seconds = clock() - start
    return Timing(seconds, waited() - before > TOLERATED * seconds, page_faults() - faults)


def page_faults():
    """Of the process so far that needed no disk."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


FEWEST_ROUNDS = 5


class Limits(NamedTuple):
    """At most so many rounds and about so many seconds, but at least FEWEST_ROUNDS; up to `patience` seconds for
    undisturbed ones."""

    rounds: int = 100
    seconds: float = 2.0
    patience: float = 10.0

    def reached(self, quiet, disturbed, seconds):
        """Whether so many rounds, after so many seconds, will do."""
        fewest = min(FEWEST_ROUNDS, self.rounds)
        if quiet >= self.rounds:
            return True
        return seconds > self.seconds and (quiet >= fewest or (quiet + disturbed >= fewest and seconds > self.patience))


def best(call, limits=Limits(), clock=time.perf_counter, waited=waited) -> Timing:
    """The shortest of the undisturbed timings of `call()`; where all are disturbed, of those."""
    return by_turns([call], limits, clock, waited)[0]


def by_turns(calls, limits=Limits(), clock=time.perf_counter, waited=waited) -> list[Timing]:
    """The same of each of `calls`, within the limits of one: they take turns, so that what memory the process holds, and
    how fast the machine is just then, is alike for all."""
    timings = [([], []) for _ in calls]  # the undisturbed and the others
    turns, start = 0, clock()
    while not limits.reached(quiet := min(len(q) for q, _ in timings), turns - quiet, (clock() - start) / len(calls)):
        for call, (undisturbed, disturbed) in zip(calls, timings):
            timing = timed(call, clock, waited)
            (disturbed if timing.disturbed else undisturbed).append(timing)
        turns += 1
    return [min(undisturbed or disturbed) for undisturbed, disturbed in timings]


def one_line(error, longest=500):
    """An exception as a line of text."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:longest]


class Wrong(RuntimeError):
    """Outputs are not what they should be; the message says in what."""


def outputs_of(result):
    """What a call returned, as a list of tensors."""
    return [result] if isinstance(result, torch.Tensor) else list(result)


def error_of(outputs, reference):
    """The largest difference from `reference` (float64), relative to the reference's largest element; of several
    outputs the worst."""
    worst = 0.0
    for output, expected in zip(outputs, reference, strict=True):
        if output.shape != expected.shape:
            raise Wrong(f"an output of {tuple(output.shape)} where {tuple(expected.shape)} is expected")
        difference = (output.double() - expected).abs().max() / expected.abs().max().clamp_min(1e-300)
        worst = max(worst, float("inf") if difference.isnan() else difference.item())
    return worst
