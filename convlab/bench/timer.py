"""Paired timing: every round times every contestant once, so that what disturbs the machine disturbs all of them."""

import gc
import random
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

LEAST = 1.5e-3  # seconds a timing takes at least: thousands of times the clock's resolution and the loop's own cost
FEWEST_ROUNDS = 5


class Times(NamedTuple):
    """seconds a call, by contestant and round; calls a timing, by contestant."""

    seconds: dict[str, list[float]]
    repeats: dict[str, int]

    def ratios(self, over, under):
        """By round, the time of `over` in that of `under`."""
        return [a / b for a, b in zip(self.seconds[over], self.seconds[under])]


def time_paired(calls: dict[str, Callable], rounds: int, budget: float, clock=time.perf_counter, tick=lambda: None) -> Times:
    """Times `calls` against one another in at most `rounds` rounds and about `budget` seconds, but FEWEST_ROUNDS at the least.

    Who comes first changes from round to round, by a fixed seed. `tick` is called after every round.
    """
    repeats = {name: _calibrate(call, clock) for name, call in calls.items()}
    seconds = {name: [] for name in calls}
    order, shuffle = list(calls), random.Random(0).shuffle
    collects = gc.isenabled()
    gc.collect()
    gc.disable()  # its pauses hit whoever happens to be running
    try:
        start = clock()
        for done in range(rounds):
            if done >= FEWEST_ROUNDS and clock() - start > budget:
                break
            shuffle(order)
            for name in order:
                seconds[name].append(_time(calls[name], repeats[name], clock) / repeats[name])
            tick()
    finally:
        if collects:
            gc.enable()
    return Times(seconds, repeats)


def _calibrate(call, clock):
    """How often to call so that a timing takes LEAST; warms up on the way."""
    call()
    repeats = 1
    while (taken := _time(call, repeats, clock)) < LEAST:
        repeats = max(repeats + 1, min(10 * repeats, int(1.1 * repeats * LEAST / max(taken, 1e-9))))
    return repeats


def _time(call, repeats, clock):
    start = clock()
    for _ in range(repeats):
        call()
    return clock() - start


def spread(values) -> dict[str, float]:
    """median, q1 and q3 (the quartiles) and least of the values."""
    q1, median, q3 = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
    return {"median": median, "q1": q1, "q3": q3, "least": min(values)}
