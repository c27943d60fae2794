"""A case becomes a row: check, then time; and the row is set beside the ceilings."""

import itertools
from typing import NamedTuple

import torch

from .._measure import Limits, Wrong, outputs_of
from .case import OURS, cast, in_layout
from .ceilings import last_level_cache
from .check import check
from .timer import spread, time_paired


class Options(NamedTuple):
    """limits: how long a case is timed. cold: go round more data than the last-level cache holds."""

    limits: Limits = Limits()
    cold: bool = False


def measure(case, options):
    """The row of a case, ready for JSON. Times are in microseconds.

    times: by contestant, median, quartiles and least, repeats and error; or {"failed": why}.
    ratios: by torch's contestants, the median and quartiles over rounds of their time in convlab's: above 1, convlab is
    faster. best: the fastest of torch's. rounds, left_out, disturbed: how many were used, how many not because another
    program took a core, and whether, for want of others, such rounds are among the used. A row whose "refused" says why
    has none of these.
    """
    row = {
        "kind": case.kind,
        "layer": case.layer,
        "pass": case.pass_,
        "layout": case.layout,
        "flops": case.flops,
        "bytes": case.bytes,
    }
    with torch.set_grad_enabled(case.grad):
        try:
            calls, errors, failed = _prepare(case, options)
        except Wrong as wrong:
            return row | {"refused": str(wrong)}
        times = time_paired(calls, options.limits)
    in_us = {name: [1e6 * s for s in seconds] for name, seconds in times.seconds.items()}
    row["times"] = {
        name: spread(us) | {"repeats": times.repeats[name], "error": errors[name]} for name, us in in_us.items()
    }
    row["ratios"] = {name: spread(times.ratios(name, OURS)) for name in calls if name != OURS}
    row["best"] = min(row["ratios"], key=lambda name: row["times"][name]["median"])
    row["times"] |= {name: {"failed": why} for name, why in failed.items()}
    return row | {"rounds": len(in_us[OURS]), "left_out": times.left_out, "disturbed": times.disturbed}


def set_beside(row, ceilings):
    """Adds to a row what the ceilings say of it.

    floor: microseconds that its flops and bytes take at the least. rate: GFLOP/s, or GB/s where there is no arithmetic,
    by contestant; share: of the peak, or of a copy's bandwidth.
    """
    if "refused" in row or not (row["flops"] or row["bytes"]):
        return
    row["floor"] = 1e6 * ceilings.floor(row["flops"], row["bytes"])
    ceiling = ceilings.peak if row["flops"] else ceilings.bandwidth(row["bytes"])
    medians = {name: times["median"] / 1e6 for name, times in row["times"].items() if "failed" not in times}
    row["rate"] = {name: (row["flops"] or row["bytes"]) / seconds / 1e9 for name, seconds in medians.items()}
    row["share"] = {name: 1e9 * rate / ceiling for name, rate in row["rate"].items()}


def _prepare(case, options):
    """(what to time by contestant, their errors, why others of torch's cannot be timed). Raises Wrong."""
    torch.manual_seed(0)
    drawn = case.draw()
    calls, results, failed = {}, {}, {}
    bind = _binder(case, drawn)
    for name in case.contestants:
        try:
            calls[name] = bind(name)
            results[name] = [t.clone() for t in outputs_of(calls[name]())]
        except Exception as error:  # whatever it raises, the others can still be measured
            why = " ".join(f"{type(error).__name__}: {error}".split())[:500]
            if name == OURS:
                raise Wrong(why) from error
            calls.pop(name, None)
            failed[name] = why
    errors = check(case, results, outputs_of(case.reference(cast(drawn, torch.float64))))
    if options.cold and case.bytes:
        binders = [bind] + [_binder(case, case.draw()) for _ in range(2 * last_level_cache() // case.bytes + 1)]
        calls = {name: _rotation([bind(name) for bind in binders]) for name in calls}
    return calls, errors, failed


def _binder(case, tensors):
    """Binds contestants, by name, to `tensors`: the same ones for all of a layout."""
    laid = {layout: in_layout(tensors, layout) for layout in {c.layout for c in case.contestants.values()}}
    return lambda name: case.contestants[name].bind(laid[case.contestants[name].layout])


def _rotation(calls):
    """Calls one after the other, and keeps the outputs of each until its next turn, so that they rotate, too."""
    kept, turn = [None] * len(calls), itertools.cycle(range(len(calls)))

    def call():
        i = next(turn)
        kept[i] = calls[i]()

    return call
