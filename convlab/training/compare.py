"""torch's layers and convlab's, trained side by side from the same seed."""

import json
import statistics
import time

from . import files, session
from .progress import Progress

KINDS = ("torch", "convlab")


def compare(task, args, train_set, test_set, world):
    """Trains both, step by step in turns, prints a line for each epoch, draws compare.png and writes compare.jsonl.

    The picture goes to args.plots if that is given, else to args.out with the numbers. Returns every step's loss, by
    kind.
    """
    trainings = {kind: session.prepare(task, args, train_set, world, layers=kind) for kind in KINDS}
    losses, seconds = {kind: [] for kind in KINDS}, {kind: [] for kind in KINDS}
    first = trainings["torch"]
    per_epoch = len(first.batches)
    lines = []
    with Progress(first.of, shown=world.leads) as progress:
        progress.line(
            f"{task.name} on {world.device}: torch's layers and convlab's in turns, {first.of} steps of {args.batch_size} images"
        )
        while first.done < first.of:
            since = len(losses["torch"])
            steps = {kind: training.steps() for kind, training in trainings.items()}
            while True:
                order = KINDS if len(losses["torch"]) % 2 else KINDS[::-1]
                made = [_timed(steps[kind], losses[kind], seconds[kind], world) for kind in order]
                if not all(made):
                    break
                progress.step()
            line = {"epoch": first.epoch}
            for kind, training in trainings.items():
                rate = args.batch_size / statistics.median(seconds[kind][since:])
                line[kind] = {
                    "losses": losses[kind][since:],
                    "test_accuracy": training.score(test_set).accuracy,
                    "images_per_second": rate,
                }
            lines.append(line)
            progress.line(_described(line, -(-first.of // per_epoch)))
        if world.leads:
            from . import pictures

            rates = {kind: args.batch_size / statistics.median(seconds[kind]) for kind in KINDS}
            apart = max(abs(a - b) / abs(a) for a, b in list(zip(*losses.values()))[:20])
            title = (
                f"{task.name} on {world.device}: convlab {rates['convlab'] / rates['torch']:.2f} times as fast as torch"
            )
            files.replace(
                args.out / "compare.jsonl",
                lambda file: file.writelines(json.dumps(line).encode() + b"\n" for line in lines),
            )
            path = pictures.draw_comparison(args.plots or args.out, title, losses, rates, per_epoch)
            progress.line(f"the first losses, up to 20, differ by {apart:.1e} at most, relatively")
            progress.line(f"{title}\ndrew {path}, kept {args.out / 'compare.jsonl'}")
    return losses


def _timed(steps, losses, seconds, world):
    """Takes one step, and notes its loss and its seconds; whether there was one."""
    start = time.perf_counter()
    result = next(steps, None)
    if result is None:
        return False
    losses.append(world.sum(result)[0].item())  # waits for a GPU
    seconds.append(time.perf_counter() - start)
    return True


def _described(line, epochs):
    kinds = "  ".join(
        f"{kind}: train loss {statistics.mean(line[kind]['losses']):.4f} test accuracy {100 * line[kind]['test_accuracy']:5.2f} % "
        f"{line[kind]['images_per_second']:.0f} images/s"
        for kind in KINDS
    )
    return f"epoch {line['epoch']:{len(str(epochs))}}/{epochs}  {kinds}"
