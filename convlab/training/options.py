"""The command line that the training scripts share."""

import os
from importlib.util import find_spec

import torch

import convlab

from .. import _command_line as arguments
from .._near import did_you_mean
from .choices import INITIALISERS, LOSSES
from .run import AMP

LAYERS = ("convlab", "convlab-unfused", "torch")


def parser(doc, epochs, out, batch_size, lr, models=()):
    """The parser of a script.

    epochs: their number for each data set, of which the first is the default; out: the default folder; batch_size: the
    default; lr: the learning rate for each optimizer, the first of them the default; models: the names of the networks,
    if there are several.
    """
    result = arguments.Parser(description=doc)
    group = result.add_argument_group
    default, n = "(default: %(default)s)", {"metavar": "N", "type": arguments.whole_number(1)}
    n0, folder = {**n, "type": arguments.whole_number(0)}, {"metavar": "DIR", "type": arguments.output_folder}

    add = group("what is trained, on what").add_argument
    add("--data", choices=epochs, default=next(iter(epochs)), help="default: %(default)s")
    add("--data-dir", metavar="DIR", default="data", help=f"where downloaded data lies or goes {default}")
    add("--images", metavar="N", type=arguments.whole_number(10), help="use the first N images of each part only")
    if models:
        add("--model", choices=models, default=next(iter(models)), help=f"the network {default}")
    add("--init", choices=INITIALISERS, default="default", help="the weights at the start; default: torch's own")
    add("--seed", **n0, default=0, help=f"for weights, order and shifts {default}")

    add = group("how").add_argument
    add("--epochs", **n, help=f"passes over the training images (default: {_listed(epochs)})")
    add("--steps", **n, help="stop after N steps, if that is sooner")
    add("--batch-size", **n, default=batch_size, help=f"images in a step, of all processes together {default}")
    add("--optimizer", choices=lr, default=next(iter(lr)), help="default: %(default)s")
    highest = f"the highest of the one-cycle schedule (default: {_listed(lr)})"
    add("--lr", metavar="RATE", type=arguments.positive, help=highest)
    distance = f"or the expected squared distance of labels {default}"
    add("--loss", choices=LOSSES, default="cross-entropy", help=distance)

    add = group("by whose code, where").add_argument
    layers = "whose layers, by blocks or one by one; same weights, same batches"
    add("--layers", choices=LAYERS, default=LAYERS[0], help=f"{layers} {default}")
    add("--algo", metavar="NAME", help="the convolutions' algorithm, where it can; all: a table of what each one does")
    add("--simulate", action="store_true", help="through the CUDA kernels in the simulator: a table, as for --algo all")
    add("--compare", action="store_true", help="torch's layers and convlab's side by side; draws compare.png")
    add("--device", type=arguments.device, default="cpu", help="cpu (default), cuda or cuda:N")
    add("--amp", choices=AMP, help="automatic mixed precision")
    add("--compile", metavar="BACKEND", nargs="?", const="inductor", help="torch.compile (backend: inductor)")
    add(
        "--graph", action="store_true", help="on a GPU: forward and backward as captured graphs, without Python between"
    )
    add("--channels-last", action="store_true", help="keep images and filters in NHWC order")
    add("--workers", **n0, default=0, help=f"processes that prepare batches {default}")
    add("--prefetch", action="store_true", help="on a GPU: batches come from the CPU's memory, beside the step before")

    add = group("what is kept").add_argument
    add("--out", **folder, default=out, help=f"for last.pt, best.pt, log.jsonl {default}")
    add("--resume", action="store_true", help="continue the run in --out where it was, or begin if there is none")
    add("--save-every", **n, help="save every N steps too, not only every epoch")
    add("--plots", **folder, help="draw curves, filters, feature maps and errors into DIR")
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
    names, torchs = _algorithms(args), args.layers == "torch"
    table = args.simulate or args.algo == "all"

    def refuse(message):
        parser.error(f"argument {message}")

    if args.algo and torchs:
        refuse("--algo: torch's layers have no choice of algorithm; leave out --layers torch")
    if args.algo not in (None, *(choices := ("all", "auto", *names))):
        near = did_you_mean(args.algo, choices)
        refuse(f"--algo: {args.algo!r} is no algorithm for {_backend(args)}: {near}choose one of {', '.join(choices)}")
    if args.simulate and (args.device.type != "cpu" or torchs or args.compile):
        refuse("--simulate: it runs convlab's layers, uncompiled, on the CPU; leave out --device, --layers, --compile")
    if args.compare and (table or torchs):
        refuse("--compare: both kinds of layers are trained; leave out --simulate, --algo all and --layers")
    if table and int(os.environ.get("WORLD_SIZE", 1)) > 1:
        refuse("--simulate, --algo: a table is made by one process, without torchrun")
    if (table or args.compare) and args.resume:
        refuse("--resume: --compare, --simulate and --algo all keep no checkpoints")
    if args.graph and (args.device.type != "cuda" or args.compile):
        refuse("--graph: it captures what a GPU does, uncompiled: use --device cuda, and leave out --compile")
    if args.graph and int(os.environ.get("WORLD_SIZE", 1)) > 1:
        refuse("--graph: one process captures, without torchrun")
    if args.compile and args.compile not in (known := torch.compiler.list_backends(exclude_tags=())):
        near = did_you_mean(args.compile, known)
        refuse(f"--compile: {args.compile!r} is no backend of torch.compile: {near}choose one of {', '.join(known)}")
    if (args.plots or args.compare) and not find_spec("matplotlib"):
        refuse("--plots, --compare: pictures need matplotlib: pip install matplotlib")
    if args.tensorboard and not find_spec("tensorboard"):
        refuse("--tensorboard: pip install tensorboard")
    epochs, lr = args.defaults
    args.epochs = args.epochs or epochs[args.data]
    args.lr = args.lr or lr[args.optimizer]
    del args.defaults
    return args


def _backend(args):
    return "cuda" if args.simulate else args.device.type


def _algorithms(args):
    return [a.name for a in convlab.algorithms() if _backend(args) in a.backends]


def algorithms_asked_for(args):
    """The names a table is made of: every one that the backend has for --algo all, or the one."""
    return _algorithms(args) if args.algo == "all" else [args.algo or "auto"]
