"""Paired timing: every round times everybody once, so that what disturbs the machine disturbs all of them.

Rounds in which another program took a core are left out, as long as enough others remain.
"""

import itertools
import random
import statistics
from collections.abc import Callable
from typing import Any, NamedTuple

from .._measure import FEWEST_ROUNDS, Timing, one_line

CALIBRATION = 0.1  # seconds to look for an undisturbed timing


class Series(NamedTuple):
    """Calls that are timed together. warm: what is called before a timing and not timed, because the one before was
    somebody else's: caches are his, and threads may have gone to sleep. captured: whether `run` replays a graph; if
    not, why."""

    run: Callable[[], Any]
    calls: int
    warm: Callable[[], Any] | None = None
    captured: bool = False
    why_not: str = ""


def series_of(device, calls, setting, capture) -> Series:
    """`calls` in rotation, each as often as the others, as many as a timing on the device takes. Outputs of several
    calls are kept until the next iteration, so that they rotate, too. setting: a context in which they run."""

    def repeated(count):
        def run():
            with setting():
                if len(calls) == 1:
                    for call in itertools.repeat(calls[0], count):
                        call()
                else:
                    kept = [None] * len(calls)
                    for i in range(count):
                        kept[i % len(calls)] = calls[i % len(calls)]()

        return run

    for call in calls:
        with setting():
            call()
    count = len(calls)
    while (taken := _undisturbed(device, repeated(count))) < device.least and count < device.most:
        wanted = min(max(count + 1, min(10 * count, int(1.1 * count * device.least / max(taken, 1e-9)))), device.most)
        count = -(-wanted // len(calls)) * len(calls)
    why_not = ""
    if capture and device.graphs:
        try:
            return Series(device.captured(repeated(count)), count, captured=True)
        except Exception as error:  # noqa: BLE001  (a library may raise anything; calls can be timed one by one)
            why_not = one_line(error, 200)
    return Series(repeated(count), count, calls[-1] if device.cools else None, False, why_not)


def _undisturbed(device, run) -> float:
    end = device.clock() + CALIBRATION
    while (timing := device.timing(run)).disturbed and device.clock() < end:
        pass
    return timing.seconds


class Times(NamedTuple):
    """rounds: of each, everybody's timing. left_out: how many were not used, because they were disturbed. disturbed:
    whether, for want of others, disturbed rounds are among them."""

    series: dict[str, Series]
    rounds: list[dict[str, Timing]]
    left_out: int
    disturbed: bool

    def of(self, name) -> dict:
        """Microseconds a call and page faults a call, over rounds."""
        series, timings = self.series[name], [r[name] for r in self.rounds]
        us = [1e6 * timing.seconds / series.calls for timing in timings]
        return spread(us) | {
            "rounds": len(us),
            "calls": series.calls,
            "captured": series.captured,
            "faults": statistics.median(timing.faults for timing in timings) / series.calls,
        }

    def ratios(self, over, under) -> list[float]:
        """By round, how many times as long as `under` the call `over` took."""
        calls = self.series[over].calls / self.series[under].calls
        return [r[over].seconds / r[under].seconds / calls for r in self.rounds]


def time_paired(device, series: dict[str, Series], limits) -> Times:
    """Times all series against one another. Who comes first changes from round to round, by a fixed seed."""
    order, shuffle = list(series), random.Random(0).shuffle
    quiet, disturbed = [], []
    start = device.clock()
    while not limits.reached(len(quiet), len(disturbed), device.clock() - start):
        shuffle(order)
        timings = {}
        for name in order:
            if series[name].warm:
                series[name].warm()
            timings[name] = device.timing(series[name].run)
        (disturbed if any(timing.disturbed for timing in timings.values()) else quiet).append(timings)
    if len(quiet) < min(FEWEST_ROUNDS, limits.rounds):
        return Times(series, quiet + disturbed, 0, bool(disturbed))
    return Times(series, quiet, len(disturbed), False)


def spread(values) -> dict[str, float]:
    """median, q1 and q3 (the quartiles) and least of the values."""
    q1, median, q3 = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
    return {"median": median, "q1": q1, "q3": q3, "least": min(values)}
