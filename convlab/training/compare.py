"""torch's layers and convlab's, trained side by side from the same seed."""

import itertools
import json
import statistics
import time

from . import files
from .progress import Progress
from .run import Run
from .score import Score

KINDS = ("torch", "convlab")


def compare(name, train, args, sets, world):
    """Trains both, step by step in turns, prints a line for each epoch, draws compare.png and writes compare.jsonl.

    The picture goes to args.plots if that is given, else to args.out with the numbers. Returns every step's loss, by
    kind.
    """
    runs = {kind: Run(args, sets, world, layers=kind) for kind in KINDS}
    trainings = {kind: train(run) for kind, run in runs.items()}
    losses, seconds, lines = {kind: [] for kind in KINDS}, {kind: [] for kind in KINDS}, []
    steps, per_epoch = runs["torch"].steps, runs["torch"].per_epoch

    def next_of(kind):
        start = time.perf_counter()
        result = next(trainings[kind], None)
        if result and not isinstance(result, Score):
            losses[kind].append(world.sum(result[0].detach()).item())  # waits for a GPU
            seconds[kind].append(time.perf_counter() - start)
        return result

    with Progress(steps, shown=world.leads) as progress:
        what = f"{steps} steps of {args.batch_size} images"
        progress.line(f"{name} on {world.device}: torch's layers and convlab's in turns, {what}")
        since = 0
        for kinds in itertools.cycle((KINDS[::-1], KINDS)):
            results = {kind: next_of(kind) for kind in kinds}
            if None in results.values():
                break
            if not isinstance(results["torch"], Score):
                progress.step()
                continue
            lines.append({"epoch": len(lines) + 1})
            for kind in KINDS:
                lines[-1][kind] = {
                    "losses": losses[kind][since:],
                    "test_accuracy": results[kind].accuracy,
                    "images_per_second": args.batch_size / statistics.median(seconds[kind][since:]),
                }
            since = len(losses["torch"])
            progress.line(_described(lines[-1], -(-steps // per_epoch)))
        if world.leads:
            from . import pictures

            rates = {kind: args.batch_size / statistics.median(seconds[kind]) for kind in KINDS}
            apart = max(abs(a - b) / abs(a) for a, b in list(zip(*losses.values()))[:20])
            title = f"{name} on {world.device}: convlab {rates['convlab'] / rates['torch']:.2f} times as fast as torch"
            numbers = args.out / "compare.jsonl"
            files.replace(numbers, "".join(json.dumps(line) + "\n" for line in lines).encode())
            path = pictures.draw_comparison(args.plots or args.out, title, losses, rates, per_epoch)
            progress.line(f"the first losses, up to 20, differ by {apart:.1e} at most, relatively")
            progress.line(f"{title}\ndrew {path}, kept {numbers}")
    return losses


def _described(line, epochs):
    said = f"epoch {line['epoch']:{len(str(epochs))}}/{epochs}"
    for kind in KINDS:
        loss, (_, accuracy, rate) = statistics.mean(line[kind]["losses"]), line[kind].values()
        said += f"  {kind}: train loss {loss:.4f} test accuracy {100 * accuracy:5.2f} % {rate:.0f} images/s"
    return said
