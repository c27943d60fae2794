"""Paired timing on a device: every round times every call once, in an order that changes; calls are captured into
graphs where possible.

A graph takes the host out of the measurement: what is timed is what the GPU does. What cannot be captured is called by
the host, and where the GPU is faster than the host, that is what is measured.
"""

import random
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from ..timer import spread


class Limits(NamedTuple):
    """rounds: timings of each; of slow calls as many as `patience` seconds allow, but FEWEST. seconds: how long a
    timing takes, about. calls: in a graph, at most."""

    rounds: int = 15
    seconds: float = 0.4e-3
    calls: int = 200
    patience: float = 0.5


FEWEST = 3  # rounds
SLOW = 20e-3  # seconds: what takes longer is warmed up once


class Timed(NamedTuple):
    """us: microseconds a call, median, quartiles and least over rounds. rounds of so many calls. captured: whether they
    were a graph; if not, why."""

    us: dict[str, float]
    rounds: int
    calls: int
    captured: bool
    why_not: str


class Series(NamedTuple):
    """Calls, one after the other, ready to be timed."""

    run: Callable[[], Any]
    calls: int
    captured: bool
    why_not: str


def series_of(device, calls: list[Callable], limits: Limits, capture: bool = True) -> Series:
    """`calls` in rotation, as many as take about limits.seconds, every one at least once. Their outputs are kept for a
    turn, so that they rotate, too."""
    for call in calls:
        call()
    device.synchronize()
    once = device.seconds(calls[0])
    once = once if once > SLOW else min(device.seconds(calls[0]) for _ in range(2))
    count = -(-max(min(int(limits.seconds / max(once, 1e-7)), limits.calls), 1) // len(calls)) * len(calls)

    def run():
        kept = [None] * len(calls)
        for i in range(count):
            kept[i % len(calls)] = calls[i % len(calls)]()
        return kept

    why_not = "not asked for"
    if capture:
        try:
            graph = device.captured(run, 3 if once * count < SLOW else 1)
            graph.replay()
            device.synchronize()
            return Series(graph.replay, count, True, "")
        except Exception as error:  # noqa: BLE001  (a library may raise anything; the calls can still be timed one by one)
            why_not = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    return Series(run, count, False, why_not)


def time_paired(device, series: dict[str, Series], limits: Limits) -> tuple[dict[str, Timed], Callable]:
    """Times all series against one another, after a round that is not counted. Returns them by name, and a function
    that gives the ratios over rounds of one name's times to another's."""
    order, shuffle = list(series), random.Random(0).shuffle
    rounds = []
    enough = min(FEWEST, limits.rounds)
    start = time.perf_counter()
    while len(rounds) < 1 + enough or (
        len(rounds) < 1 + limits.rounds and time.perf_counter() - start < limits.patience
    ):
        shuffle(order)
        rounds.append({name: 1e6 * device.seconds(series[name].run) / series[name].calls for name in order})
    del rounds[0]
    timed = {
        name: Timed(spread([r[name] for r in rounds]), len(rounds), s.calls, s.captured, s.why_not)
        for name, s in series.items()
    }
    return timed, lambda over, under: spread([r[over] / r[under] for r in rounds])
