"""A case becomes a row: outputs are checked against float64, because a wrong kernel has no speed; then it is timed."""

import gc
import time
from functools import partial

import torch

from .._measure import Wrong, error_of, one_line, outputs_of
from .case import LAYOUTS, OURS, cast, in_layout
from .timer import series_of, spread, time_paired


def measure(case, device) -> dict:
    """The row of a case, ready for JSON.

    It has the case's own fields, and:

    floor: by precision, the least microseconds that the case's flops and bytes take on this device.
    left_out: how many rounds were not used because another program took a core. disturbed: whether such rounds had to
    be used, for want of others.
    seconds: how long measuring the row took.
    ways: by name. Each has error, against float64; kernels, the names of those that torch ran; and under "cold" or
    "warm" its times in microseconds per call (median, q1, q3 and least over the rounds, how many calls a round has, and
    whether they were captured into a graph), page faults per call, and, except for convlab's own ways, the ratio: above
    1 where convlab is faster, median and quartiles over the rounds. A way that failed has "failed", which says why, and
    nothing else.

    A row with "refused", which says what is wrong with convlab's outputs, has no ways.
    """
    start = time.perf_counter()
    row = case.head | device.head | {"flops": case.flops, "bytes": case.bytes}
    gc.disable()  # its pauses would fall on whichever way is being timed
    try:
        with torch.set_grad_enabled(case.grad):
            row |= _measured(case, device)
    except Exception as error:  # noqa: BLE001  (out of memory, say: the other rows can still be measured)
        row["refused"] = str(error) if isinstance(error, Wrong) else one_line(error)
    finally:
        gc.enable()
        gc.collect()
        device.clean()
    set_floor(row, device)
    return row | {"seconds": time.perf_counter() - start}


def set_floor(row, device):
    """Adds to a row the least time that the device's ceilings allow."""
    row["floor"] = {row["precision"]: device.floor(row["flops"], row["bytes"], row["precision"])}


def base_of(name):
    """The name of convlab's way that `name` is compared with."""
    return f"{OURS} graph" if name.endswith(" graph") else OURS


def _measured(case, device):
    torch.manual_seed(0)
    drawn = _draw(case, device)
    laid = _laid(case, drawn)
    reference = [t.double() for t in outputs_of(case.reference(cast(drawn, torch.float64))())]
    ways, calls = {}, {}
    for name, way in case.ways.items():
        try:
            with device.setting(name, way.precision):
                call = way.bind(laid[way.layout])
                outputs = outputs_of(call())
            ways[name] = {"error": error_of(outputs, reference)}
            if name.startswith(OURS):
                _check_layout(outputs, way.layout, case)
            calls[name] = call
        except Exception as error:
            ways[name] = {"failed": one_line(error)}
            if name.startswith(OURS):
                raise Wrong(f"{name}: {error if isinstance(error, Wrong) else one_line(error)}") from error
    _check_errors(case, ways)
    del reference, drawn
    settings = {name: partial(device.setting, name, case.ways[name].precision) for name in calls}
    if case.kernels:
        theirs = [name for name in calls if not (name.startswith(OURS) or name.endswith(" graph"))]
        for name, names in device.kernels_of(
            {name: partial(_within, settings[name], calls[name]) for name in theirs}
        ).items():
            ways[name]["kernels"] = names
    left_out, disturbed = 0, False
    for heat, sets in device.heats(case).items():
        more = [_laid(case, _draw(case, device)) for _ in range(sets - 1)]
        series = {}
        for name, call in calls.items():
            way = case.ways[name]
            with settings[name]():
                rotation = [call, *(way.bind(tensors[way.layout]) for tensors in more)]
            series[name] = series_of(device, rotation, settings[name], way.capture)
            if series[name].why_not:
                ways[name]["not_captured"] = series[name].why_not
        times = time_paired(device, series, device.limits)
        left_out, disturbed = left_out + times.left_out, disturbed or times.disturbed
        for name in calls:
            ways[name][heat] = times.of(name)
            if name not in (OURS, f"{OURS} graph"):
                ratio = spread(times.ratios(name, base_of(name)))
                ways[name][heat] |= {"ratio": ratio["median"], "ratio_q1": ratio["q1"], "ratio_q3": ratio["q3"]}
    return {"ways": ways, "left_out": left_out, "disturbed": disturbed}


def _draw(case, device):
    with torch.device(device.type):
        return case.draw()


def _laid(case, drawn):
    """The tensors as ways take them, by layout."""
    tensors = cast(drawn, case.dtype)
    return {layout: in_layout(tensors, layout) for layout in {way.layout for way in case.ways.values()}}


def _within(setting, call):
    with setting():
        return call()


def _check_layout(outputs, layout, case):
    for output in outputs:
        if not case.grad and output.dim() == 4 and not output.is_contiguous(memory_format=LAYOUTS[layout]):
            raise Wrong(f"its output {tuple(output.shape)} has strides {output.stride()}, which is not {layout}")


def _check_errors(case, ways):
    """Raises Wrong if the error of one of convlab's ways is more than twice torch's worst in the same precision."""
    errors = {
        name: way["error"]
        for name, way in ways.items()
        if case.ways[name].precision == case.precision and "error" in way
    }
    bound = 2 * max((error for name, error in errors.items() if not name.startswith(OURS)), default=0) + case.slack
    for name, error in errors.items():
        if name.startswith(OURS) and not error <= bound:
            raise Wrong(f"{name}: its error against float64 is {error:.2e}, more than twice torch's: {bound:.2e}")
