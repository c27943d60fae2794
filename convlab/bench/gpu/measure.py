"""A case becomes a row: its outputs are checked, then it is timed, cold and warm, and set beside its floors."""

import gc
import time
from contextlib import contextmanager
from typing import NamedTuple

import torch

from ..._measure import error_of, outputs_of
from ..case import OURS, cast, in_layout
from .ceilings import floor_us
from .precision import multiplying_in
from .timing import Limits, series_of, time_paired

COLD_BYTES = 200 * 2**20  # that cold calls go round, at least; twice the cache, where that is more


class Options(NamedTuple):
    """limits: how long a case is timed. kernels: whether names of kernels are recorded."""

    limits: Limits = Limits()
    kernels: bool = True


def measure(case, device, options, ceilings) -> dict:
    """The row of a case, ready for JSON. Times are in microseconds.

    ways: by name, precision, layout, error (against float64), cold and warm times {median, q1, q3, least, rounds,
    calls, captured, why_not} and kernels (names, None where they are unknown); or {"failed": why}. Steps have warm
    times only: a step's activations are its own data. ratios: by name, and cold or warm, the median and quartiles over
    rounds of its time in convlab's: above 1, convlab is faster. floor: by precision, microseconds that flops and bytes
    take at the least by the ceilings measured in the same run. seconds: what the row itself took, by what for. A row
    whose "refused" says why convlab's outputs are wrong has neither times nor ratios.
    """
    spent = {}
    row = {
        "kind": case.kind,
        "layer": case.layer,
        "pass": case.pass_,
        "precision": case.precision,
        "flops": case.flops,
        "bytes": case.bytes,
    }
    row["floor"] = {
        p: floor_us(ceilings, case.flops, case.bytes, p)
        for p in dict.fromkeys(way.precision for way in case.ways.values())
    }
    try:
        with torch.set_grad_enabled(case.grad):
            return row | _measured(case, device, options, spent) | {"seconds": spent}
    finally:
        gc.collect()
        device.clean()


@contextmanager
def _timing(spent, what, device):
    start = time.perf_counter()
    yield
    device.synchronize()
    spent[what] = time.perf_counter() - start


def _measured(case, device, options, spent):
    torch.manual_seed(0)
    drawn = case.draw()
    with _timing(spent, "reference", device):
        reference = [t.double() for t in outputs_of(case.reference(cast(drawn, torch.float64)))]
    ways, calls = {}, {}
    with _timing(spent, "first calls", device):  # cuDNN tries its algorithms
        for name, way in case.ways.items():
            ways[name] = {"precision": way.precision, "layout": way.layout}
            try:
                with multiplying_in(way.precision):
                    calls[name] = way.bind(in_layout(cast(drawn, case.dtype), way.layout))
                    ways[name]["error"] = error_of(outputs_of(calls[name]()), reference)
            except Exception as error:  # noqa: BLE001  (whatever a peer raises, the others can still be measured)
                calls.pop(name, None)
                ways[name] = {"failed": " ".join(f"{type(error).__name__}: {error}".split())[:500]}
    del reference
    if refused := _refusal(case, ways):
        return {"refused": refused, "ways": ways}
    profiled = {
        name: _in_precision(call, case.ways[name].precision) for name, call in calls.items() if case.ways[name].profile
    }
    if options.kernels and profiled:
        with _timing(spent, "kernels", device):
            for name, kernels in device.kernels_of(profiled).items():
                ways[name]["kernels"] = kernels
    ratios = {name: {} for name in calls if name != OURS}
    for heat, copies in _heats(case, device):
        with _timing(spent, heat, device):
            timed, ratio = _timed(case, device, options, calls, copies)
        for name, times in timed.items():
            ways[name][heat] = times.us | {
                "rounds": times.rounds,
                "calls": times.calls,
                "captured": times.captured,
                "why_not": times.why_not,
            }
            if name != OURS:
                ratios[name][heat] = ratio(name, OURS)
    return {"ways": ways, "ratios": ratios}


def _refusal(case, ways):
    """Why convlab's outputs are wrong, or ""."""
    for name, way in ways.items():
        if name.startswith(OURS) and "failed" in way:
            return f"{name}: {way['failed']}"
    peers = [
        way["error"]
        for name, way in ways.items()
        if not name.startswith(OURS) and way.get("precision") == case.precision and "error" in way
    ]
    bound = 2 * max(peers, default=0) + case.slack
    for name, way in ways.items():
        if name.startswith(OURS) and not way["error"] <= bound:
            return f"{name}: its error against float64 is {way['error']:.2e}, more than twice torch's: {bound:.2e}"
    return ""


def _heats(case, device):
    """("cold", so many copies of the tensors) and ("warm", one)."""
    if case.kind == "step":
        return [("warm", 1)]
    if device.dry:
        return [("cold", 2), ("warm", 1)]
    wanted = max(COLD_BYTES, 2 * device.cache_bytes())
    fit = max(
        device.free_bytes() // 4 // max(4 * case.bytes, 1), 1
    )  # every way keeps its inputs in its layout, and outputs
    return [("cold", min(-(-wanted // case.bytes), fit, 64)), ("warm", 1)]


def _timed(case, device, options, calls, copies):
    """What time_paired says of all ways, each on `copies` sets of tensors in turn."""
    drawn = [cast(case.draw(), case.dtype) for _ in range(copies)] if copies > 1 else []
    sets = {
        layout: [in_layout(tensors, layout) for tensors in drawn]
        for layout in {way.layout for way in case.ways.values()}
    }
    series = {}
    for name, call in calls.items():
        way = case.ways[name]
        with multiplying_in(way.precision):
            turn = [way.bind(tensors) for tensors in sets[way.layout]] or [call]
            made = series_of(device, turn, options.limits, way.capture)
        series[name] = made._replace(run=made.run if made.captured else _in_precision(made.run, way.precision))
    return time_paired(device, series, options.limits)


def _in_precision(run, precision):
    """A graph keeps the kernels it was captured with; calls have to be told."""

    def told():
        with multiplying_in(precision):
            return run()

    return told
