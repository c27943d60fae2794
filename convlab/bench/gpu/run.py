"""The command `python -m convlab.bench gpu`: what is measured, in which order, and how it is kept."""

import gc
import sys
import time
import warnings

from .. import record
from . import ceilings as ceilings_module
from . import convolutions, pooling, report, steps
from .device import Device, NoGpu
from .measure import Options, measure
from .timing import Limits

KINDS = ("ceilings", "conv", "ladder", "pool", "act", "step")
NO_GPU = 3  # the exit status
QUICK, DRY = Limits(rounds=3, seconds=0.1e-3, calls=20), Limits(rounds=1, calls=1)


def add_arguments(parser):
    add = parser.add_argument
    add("kinds", nargs="*", metavar="KIND", help=f"{', '.join(KINDS)} (default: all)")
    add("--layers", nargs="+", metavar="NAME", help="these layers only, by name, with @BATCH")
    add("--passes", nargs="+", choices=["forward", "dgrad", "wgrad", "backward", "step"], help="these passes only")
    add("--precision", choices=["float32", "bfloat16"], help="this type only; TF32 stands beside float32")
    add("--algo", default="auto", help="convlab's convolution algorithm (default: auto)")
    add("--filter", default="", metavar="TEXT", help="rows that have TEXT in KIND LAYER PASS PRECISION only")
    add("--no-compile", action="store_true", help="leave torch.compile out of the training steps")
    add("--no-kernels", action="store_true", help="do not record the names of kernels")
    add("--quick", action="store_true", help=f"{QUICK.rounds} rounds")
    add("--budget", type=float, metavar="SECONDS", help="begin no row after so long")
    add(
        "--dry",
        action="store_true",
        help="without a GPU: tiny layers, on the host and in the simulator; the times mean nothing",
    )
    add("--output", metavar="FILE", help=f"default: {record.FOLDER}/gpu-TIME.json")
    add("--no-save", action="store_true", help="write no file")


def main(args) -> int:
    """Runs it and returns the exit status."""
    for kind in args.kinds:
        if kind not in KINDS:
            args.error(f"argument KIND: {kind!r} is not measured, choose from: {', '.join(KINDS)}")
    if args.no_save and args.output:
        args.error("argument --output: a run with --no-save is not written; leave one of them out")
    try:
        device = Device(args.dry)
    except NoGpu as error:
        print(f"python -m convlab.bench gpu: {error}", file=sys.stderr)
        return NO_GPU
    try:
        kept = _run(args, device)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return int(any("refused" in row for row in kept["rows"]))


def _run(args, device):
    start, when = time.monotonic(), record.now()
    kinds = args.kinds or KINDS
    cases = [case for case in _cases(device, kinds, args) if _wanted(case, args)]
    if not cases and set(kinds) != {"ceilings"}:
        args.error("nothing to measure: no row has all of what --layers, --passes, --precision and --filter ask for")
    path = None if args.no_save else args.output or record.default_path("gpu", when)
    chosen = {
        key: getattr(args, key)
        for key in ("layers", "passes", "precision", "algo", "filter", "kinds", "no_compile", "budget")
    }
    kept = {
        "version": record.VERSION,
        "command": "gpu",
        "when": when,
        "complete": False,
        "left_out": len(cases),
        "why_left_out": "interrupted",
        "dry": args.dry,
        "machine": record.machine() | device.facts(),
        "options": chosen,
        "ceilings": None,
        "rows": [],
    }
    kept["ceilings"] = ceilings_module.measured(device)
    report.print_head(kept)
    options = Options(DRY if args.dry else QUICK if args.quick else Limits(), not args.no_kernels)
    warnings.simplefilter("ignore")  # of peers: what matters is recorded
    try:
        for case in cases:
            _save(kept, path)
            if args.budget and time.monotonic() - start > args.budget:
                kept["why_left_out"] = "the time was up"
                break
            gc.freeze()  # what there is stays: every row and every capture looks for garbage, for tenths of a second among all of torch
            try:
                row = measure(case, device, options, kept["ceilings"])
            except Exception as error:  # noqa: BLE001  (out of memory, say: the other rows can still be measured)
                row = {
                    "kind": case.kind,
                    "layer": case.layer,
                    "pass": case.pass_,
                    "precision": case.precision,
                    "refused": " ".join(f"{type(error).__name__}: {error}".split())[:500],
                }
            kept["rows"].append(row)
            kept["left_out"] -= 1
            report.print_row(row)
            if "refused" in row and device.lost():
                kept["why_left_out"] = "the GPU took no more calls of the process"
                break
        else:
            kept |= {"complete": True, "why_left_out": ""}
    finally:
        gc.unfreeze()
        _save(kept, path)
        if kept["left_out"]:
            print(f"{kept['left_out']} rows were not begun: {kept['why_left_out']}")
        if path:
            print(f"wrote {path}")
    return kept


def _cases(device, kinds, args):
    """In an order that leaves out what is least missed, if the time is up: small networks' layers and steps first."""
    found = convolutions.cases(device, args.algo) if "conv" in kinds else []
    found += convolutions.ladder_cases(device) if "ladder" in kinds else []
    found += pooling.pool_cases(device) if "pool" in kinds else []
    found += pooling.activation_cases(device) if "act" in kinds else []
    found += steps.cases(device, not args.no_compile) if "step" in kinds else []
    return sorted(
        found,
        key=lambda case: (
            case.precision != "float32",
            case.kind == "conv" and not case.layer.startswith(("lenet", "cifar")),
        ),
    )


def _wanted(case, args):
    return (
        case.layer in (args.layers or [case.layer])
        and case.pass_ in (args.passes or [case.pass_])
        and case.precision == (args.precision or case.precision)
        and args.filter in case.id
    )


def _save(kept, path):
    if path:
        record.save(record.rounded(kept), path)
