"""The first steps of a training through one algorithm after another: the same loss, at what traffic and time."""

import statistics
import time
import warnings
from contextlib import nullcontext
from typing import NamedTuple

import torch

import convlab

from .choices import LOSSES
from .errors import TrainingError
from .progress import Progress
from .run import Run

STEPS = 4
AGREE = 1e-5  # relative: how far float32 losses may be from torch's


class Row(NamedTuple):
    """algorithm; the loss of the last step's batch after that step; bytes of global memory a step moves (None: not
    counted); seconds a step."""

    algorithm: str
    loss: float
    traffic: int | None
    seconds: float


def ladder(train, args, names, sets):
    """Prints a row for torch's layers and one for each of the algorithms `names`; returns the rows.

    Under args.simulate convlab's CUDA kernels run in the simulator, and the memory traffic of the last step is counted.
    Raises TrainingError if a loss is not torch's.
    """
    args.steps = min(args.steps or STEPS, -(-len(sets[0].labels) // args.batch_size))  # an epoch at most
    rows, notes = [], []
    with Progress(args.steps * (len(names) + 1)) as progress:
        progress.line(
            f"{args.steps} steps of {args.batch_size} images on {args.device}{', simulated' if args.simulate else ''}"
        )
        progress.line(f"{'algorithm':16} {'loss':>10} {'from torch':>11} {'traffic a step':>16} {'time a step':>12}")
        for name in [None, *names]:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                rows.append(_row(train, args, name, sets, progress))
            notes += [str(w.message) for w in caught if str(w.message).startswith("convlab:")]
            progress.line(_described(rows[-1], rows[0]))
        for note in dict.fromkeys(notes):
            progress.line(note)
    wrong = [row.algorithm for row in rows if not abs(row.loss - rows[0].loss) <= AGREE * abs(rows[0].loss)]
    if wrong:
        raise TrainingError(f"the loss of {', '.join(wrong)} is further than {AGREE} from torch's, relatively")
    return rows


def _row(train, args, name, sets, progress):
    """The Row of algorithm `name`; None: of torch's layers, never simulated."""
    run = Run(args, sets, layers="convlab" if name else "torch", algo=name)
    training, seconds, traffic = train(run), [], None
    while run.done < args.steps:
        counted = name and args.simulate and run.done == args.steps - 1
        start = time.perf_counter()
        simulated = convlab.simulate(check=counted, count=counted) if name and args.simulate else nullcontext()
        with simulated as sim:
            loss, _ = next(training)
        loss.item()  # waits for a GPU
        if counted:
            traffic = sum(32 * row.sectors for row in sim.traffic if row.space == "global")
        if not counted or args.steps == 1:
            seconds.append(time.perf_counter() - start)
        progress.step()
    if name:
        convlab.convert(run.model, "auto")
    images, labels, n = next(run.data.epoch(0, run.done - 1))
    with torch.no_grad():  # in float64 and by the same code for every row: what differs are the weights
        outputs = run.model.double()(images.to(args.device).double())
        loss = LOSSES[args.loss](outputs, labels.to(args.device)).sum() / n
    return Row(name or "torch.nn", loss.item(), traffic, statistics.median(seconds))


def _described(row, torchs):
    moved = f"{row.traffic / 1e6:,.1f} MB" if row.traffic is not None else "-"
    apart = abs(row.loss - torchs.loss) / abs(torchs.loss)
    return f"{row.algorithm:16} {row.loss:10.6f} {apart:11.1e} {moved:>16} {1e3 * row.seconds:>9,.1f} ms"
