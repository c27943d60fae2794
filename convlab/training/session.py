"""What a training script does once it knows its options: train, compare, or make a table of the algorithms."""

import sys
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from typing import NamedTuple

import torch

import convlab

from .batches import Batches
from .errors import TrainingError
from .files import sole_use_of
from .initialise import initialise
from .log import Log
from .loop import Training
from .options import algorithms_asked_for
from .processes import World
from .progress import Progress
from .run import Run, Stopped, header


class Task(NamedTuple):
    """What a script trains.

    name: of the network; load(args): the training and the test ImageSet; build(args, layers): the network, with Conv2d,
    MaxPool2d ... out of `layers`, convlab or torch.nn; max_shift, flip: how training images are varied, see Batches.
    """

    name: str
    load: Callable
    build: Callable
    max_shift: int = 0
    flip: bool = False


def prepare(task, args, train_set, world=None, layers=None, algo=None):
    """A Training from args.seed: the same weights, order and shifts for the same seed, whatever the layers ("convlab"
    or "torch")."""
    world, layers, algo = world or World(args.device), layers or args.layers, algo or args.algo
    torch.manual_seed(args.seed)
    model = task.build(args, torch.nn if layers == "torch" else convlab)
    initialise(model, args.init)
    if layers == "convlab" and algo:
        convlab.convert(model, algo)
    if not args.workers:  # workers are processes, and what they share is the CPU's memory
        train_set = train_set.to(world.device)
    batches = Batches(train_set, args.batch_size, args.seed, task.max_shift, task.flip, world, args.workers)
    return Training(model.to(world.device), batches, args, world)


def main(task, args):
    """Does what `args` asks for. Ends the program with one line where it cannot be done, or was stopped."""
    warnings.formatwarning = lambda message, *where: f"{message}\n"
    with World(args.device) as world:
        try:
            sets = [part.part(slice(args.images)) for part in world.first_one_then_the_others(lambda: task.load(args))]
            if world.leads:
                print(
                    f"{len(sets[0].labels)} training and {len(sets[1].labels)} test images, {sets[0].source}",
                    flush=True,
                )
            if args.compare:
                from .compare import compare

                compare(task, args, *sets, world)
            elif args.simulate or args.algo == "all":
                from .ladder import ladder

                ladder(task, args, algorithms_asked_for(args), sets[0])
            else:
                train(task, args, *sets, world)
        except Stopped as stop:
            if world.leads:
                print(stop)
            sys.exit(128 + stop.signal)
        except KeyboardInterrupt:  # where there is nothing to save yet, or a second time
            sys.exit(130)
        except TrainingError as error:
            sys.exit(f"{args.prog}: {error}" if world.leads else 1)


def train(task, args, train_set, test_set, world):
    """A run, from its beginning or from where it was, to its end; then its pictures."""
    training = prepare(task, args, train_set, world)
    run = Run(training, test_set, args)
    about = header(args, training)
    with ExitStack() as stack:
        if world.leads:
            stack.enter_context(sole_use_of(args.out))
        resumed = run.begin()
        log = stack.enter_context(Log(args.out, about, run.history, args.tensorboard)) if world.leads else None
        progress = stack.enter_context(Progress(training.of, run.steps_done, shown=world.leads))
        processes = f", {world.size} processes" if world.size > 1 else ""
        progress.line(
            f"{task.name}, {about['parameters']:,} parameters, layers of {args.layers} on {world.device}{processes}: "
            f"{training.of} steps, {len(training.batches)} an epoch"
        )
        if resumed:
            progress.line(resumed)
        run.train(progress, log)
        score = training.score(test_set)
        if args.plots and world.leads:
            from . import pictures

            progress.line(
                f"drew {', '.join(map(str, pictures.draw(args.plots, task.name, training.model, run.history, score, test_set)))}"
            )
        progress.line(f"kept {run.last}, {run.best}, {run.last.with_name('log.jsonl')}")
        progress.line(f"test accuracy {100 * score.accuracy:.2f} %")
