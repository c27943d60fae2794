"""The command line that the training scripts share."""

import argparse
import os
from importlib.util import find_spec

import torch

import convlab

from .. import _command_line as arguments
from .initialise import INITIALISERS
from .losses import LOSSES

AMP = {"bf16": torch.bfloat16, "fp16": torch.float16}


def parser(doc, epochs, out, batch_size, lr, models=()):
    """The parser of a script.

    epochs: their number for each data set, of which the first is the default; out: the default folder; batch_size: the
    default; lr: the learning rate for each optimizer, the first of them the default; models: the names of the networks,
    if there are several.
    """
    result = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)

    add = result.add_argument_group("what is trained, on what").add_argument
    add("--data", choices=epochs, default=next(iter(epochs)), help="default: %(default)s")
    add("--data-dir", metavar="DIR", default="data", help="where downloaded data lies or goes (default: %(default)s)")
    add("--images", metavar="N", type=arguments.whole_number(10), help="use the first N images of each part only")
    if models:
        add("--model", choices=models, default=next(iter(models)), help="the network (default: %(default)s)")
    add("--init", choices=INITIALISERS, default="default", help="the weights at the start; default: torch's own")
    add(
        "--seed",
        metavar="N",
        type=arguments.whole_number(0),
        default=0,
        help="for weights, order and shifts (default: 0)",
    )

    add = result.add_argument_group("how").add_argument
    add(
        "--epochs",
        metavar="N",
        type=arguments.whole_number(1),
        help=f"passes over the training images (default: {_listed(epochs)})",
    )
    add("--steps", metavar="N", type=arguments.whole_number(1), help="stop after N steps, if that is sooner")
    add(
        "--batch-size",
        metavar="N",
        type=arguments.whole_number(1),
        default=batch_size,
        help="images in a step, of all processes together (default: %(default)s)",
    )
    add("--optimizer", choices=lr, default=next(iter(lr)), help="default: %(default)s")
    add(
        "--lr",
        metavar="RATE",
        type=arguments.positive,
        help=f"the highest of the one-cycle schedule (default: {_listed(lr)})",
    )
    add(
        "--loss",
        choices=LOSSES,
        default="cross-entropy",
        help="or the expected squared distance of labels (default: %(default)s)",
    )

    add = result.add_argument_group("by whose code, where").add_argument
    add("--layers", choices=["convlab", "torch"], default="convlab", help="whose layers; same weights, same batches")
    add("--algo", metavar="NAME", help="the convolutions' algorithm, where it can; all: a table of what each one does")
    add("--simulate", action="store_true", help="through the CUDA kernels in the simulator: a table, as for --algo all")
    add("--compare", action="store_true", help="torch's layers and convlab's side by side; draws compare.png")
    add("--device", type=arguments.device, default="cpu", help="cpu (default), cuda or cuda:N")
    add("--amp", choices=AMP, help="automatic mixed precision")
    add("--compile", metavar="BACKEND", nargs="?", const="inductor", help="torch.compile (backend: inductor)")
    add("--channels-last", action="store_true", help="keep images and filters in NHWC order")
    add(
        "--workers",
        metavar="N",
        type=arguments.whole_number(0),
        default=0,
        help="processes that prepare batches (default: 0)",
    )

    add = result.add_argument_group("what is kept").add_argument
    add(
        "--out",
        metavar="DIR",
        type=arguments.output_folder,
        default=out,
        help="for last.pt, best.pt, log.jsonl (default: %(default)s)",
    )
    add("--resume", action="store_true", help="continue the run in --out where it was, or begin if there is none")
    add(
        "--save-every", metavar="N", type=arguments.whole_number(1), help="save every N steps too, not only every epoch"
    )
    add(
        "--plots",
        metavar="DIR",
        type=arguments.output_folder,
        help="draw curves, filters, feature maps and errors into DIR",
    )
    add("--tensorboard", action="store_true", help="log for TensorBoard too, into --out")
    result.set_defaults(defaults=(epochs, lr), prog=result.prog)
    return result


def _listed(values):
    """One value, or which is whose."""
    same = len(set(values.values())) == 1
    return next(iter(values.values())) if same else ", ".join(f"{value} for {name}" for name, value in values.items())


def parse(parser, argv=None):
    """The choices; what makes no sense ends the program with a line that says why."""
    args = parser.parse_args(argv)
    backend = "cuda" if args.simulate else args.device.type
    names = [a.name for a in convlab.algorithms() if backend in a.backends]
    table = args.simulate or args.algo == "all"
    if args.algo is not None and args.layers == "torch":
        parser.error("argument --algo: torch's layers have no choice of algorithm; leave out --layers torch")
    if args.algo not in (None, "auto", "all", *names):
        parser.error(
            f"argument --algo: {args.algo!r} is no algorithm for {backend}, choose from: all, auto, {', '.join(names)}"
        )
    if args.simulate and (args.device.type != "cpu" or args.layers == "torch" or args.compile):
        parser.error(
            "argument --simulate: it runs convlab's layers, uncompiled, on the CPU; leave out --device, --layers, --compile"
        )
    if args.compare and (table or args.layers == "torch"):
        parser.error(
            "argument --compare: both kinds of layers are trained; leave out --simulate, --algo all and --layers"
        )
    if table and int(os.environ.get("WORLD_SIZE", 1)) > 1:
        parser.error("argument --simulate, --algo: a table is made by one process, without torchrun")
    if (table or args.compare) and args.resume:
        parser.error("argument --resume: --compare, --simulate and --algo all keep no checkpoints")
    if args.compile and args.compile not in (backends := torch.compiler.list_backends(exclude_tags=())):
        parser.error(
            f"argument --compile: {args.compile!r} is no backend of torch.compile, choose from: {', '.join(backends)}"
        )
    if (args.plots or args.compare) and not find_spec("matplotlib"):
        parser.error("argument --plots, --compare: pictures need matplotlib: pip install matplotlib")
    if args.tensorboard and not find_spec("tensorboard"):
        parser.error("argument --tensorboard: pip install tensorboard")
    epochs, lr = args.defaults
    args.epochs = args.epochs or epochs[args.data]
    args.lr = args.lr or lr[args.optimizer]
    del args.defaults
    return args


def algorithms_asked_for(args):
    """The names a table is made of: every one that the backend has for --algo all, or the one."""
    if args.algo != "all":
        return [args.algo or "auto"]
    backend = "cuda" if args.simulate else args.device.type
    return [a.name for a in convlab.algorithms() if backend in a.backends]
