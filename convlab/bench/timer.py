"""Paired timing: every round times every contestant once, so that what disturbs the machine disturbs all of them.

Rounds in which another program took a core are left out, as long as enough others remain.
"""

import gc
import random
import statistics
import time
from collections.abc import Callable
from contextlib import contextmanager
from typing import NamedTuple

from .._measure import FEWEST_ROUNDS, Limits, best, timed, waited

LEAST = 1.5e-3  # seconds a timing takes at least: thousands of times the clock's resolution and the loop's own cost
CALIBRATION = 0.1  # seconds to look for an undisturbed one


class Times(NamedTuple):
    """seconds a call, by contestant and round; calls a timing, by contestant; how many rounds were left out because
    they were disturbed; whether, for want of others, disturbed rounds were kept."""

    seconds: dict[str, list[float]]
    repeats: dict[str, int]
    left_out: int
    disturbed: bool

    def ratios(self, over, under):
        """By round, the time of `over` in that of `under`."""
        return [a / b for a, b in zip(self.seconds[over], self.seconds[under])]


def time_paired(calls: dict[str, Callable], limits=Limits(), clock=time.perf_counter, waited=waited) -> Times:
    """Times `calls`, functions without arguments by name, against one another.

    Who comes first changes from round to round, by a fixed seed.
    """
    order, shuffle = list(calls), random.Random(0).shuffle
    quiet, disturbed = [], []  # rounds: {name: seconds a call}
    with _no_garbage_collection():
        repeats = {name: _calibrate(call, clock, waited) for name, call in calls.items()}
        start = clock()
        while not limits.reached(len(quiet), len(disturbed), clock() - start):
            shuffle(order)
            timings = {name: _timed_warm(calls[name], repeats[name], clock, waited) for name in order}
            kind = disturbed if any(timing.disturbed for timing in timings.values()) else quiet
            kind.append({name: timing.seconds / repeats[name] for name, timing in timings.items()})
    too_few = len(quiet) < min(FEWEST_ROUNDS, limits.rounds)
    rounds = quiet + disturbed if too_few else quiet
    return Times(
        {name: [r[name] for r in rounds] for name in calls}, repeats, 0 if too_few else len(disturbed), too_few
    )


@contextmanager
def _no_garbage_collection():
    """Its pauses hit whoever happens to be running."""
    collects = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def _timed_warm(call, repeats, clock, waited):
    """After a call that is not timed, because the one before was somebody else's: caches are his, and threads may have
    gone to sleep."""
    call()
    return timed(_repeated(call, repeats), clock, waited)


def _repeated(call, repeats):
    def calls():
        for _ in range(repeats):
            call()

    return calls


def _calibrate(call, clock, waited):
    """How often to call so that a timing takes LEAST; warms up on the way."""
    call()
    repeats = 1
    while (taken := best(_repeated(call, repeats), Limits(1, 0.0, CALIBRATION), clock, waited).seconds) < LEAST:
        repeats = max(repeats + 1, min(10 * repeats, int(1.1 * repeats * LEAST / max(taken, 1e-9))))
    return repeats


def spread(values) -> dict[str, float]:
    """median, q1 and q3 (the quartiles) and least of the values."""
    q1, median, q3 = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
    return {"median": median, "q1": q1, "q3": q3, "least": min(values)}
