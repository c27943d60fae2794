"""A run that can be stopped at any moment and continued: training, scoring, checkpoints and the log."""

import platform
import signal
import time
from pathlib import Path

import torch

import convlab

from . import checkpoint
from .errors import CheckpointError
from .log import Log
from .loop import Training
from .progress import Progress

# What decides a run's numbers, but for their rounding: a run is continued with the same, wherever and by however many
# processes.
IDENTITY = (
    "data",
    "model",
    "images",
    "init",
    "seed",
    "epochs",
    "steps",
    "batch_size",
    "optimizer",
    "lr",
    "loss",
    "layers",
    "amp",
)


class Stopped(Exception):
    """Someone pressed Ctrl-C or sent SIGTERM, and the run is saved. `signal` is the signal's number."""

    def __init__(self, message, number):
        super().__init__(message)
        self.signal = number or signal.SIGTERM  # or: another process had it


class Run:
    """A Training and what is known of it so far: a dict for each epoch, the best accuracy, the epoch in progress."""

    def __init__(self, training: Training, test_set, args):
        self.training, self.test_set, self.args = training, test_set, args
        self.world = training.world
        self.last, self.best = Path(args.out) / "last.pt", Path(args.out) / "best.pt"
        self.history, self.best_accuracy = [], -1.0
        self.losses, self.correct, self.seconds = (
            [],
            0,
            0.0,
        )  # of the epoch that is not finished: each step's; right answers; time
        self._fresh = []  # what steps returned that is not yet in `losses` and `correct`

    @property
    def steps_done(self):
        return sum(len(epoch["losses"]) for epoch in self.history) + len(self.losses)

    # ---- keeping ----------------------------------------------------------------------------------------------------

    @property
    def identity(self):
        return {name: getattr(self.args, name) for name in IDENTITY if hasattr(self.args, name)}

    def save(self, path):
        """Writes all that a later process needs to continue bit for bit."""
        self.collect()
        if self.world.leads:
            t, device = self.training, self.world.device
            checkpoint.save(
                {
                    "run": self.identity,
                    "epoch": t.epoch,
                    "step": t.step,
                    "steps_done": self.steps_done,
                    "finished": self.steps_done == t.of,
                    "model": t.model.state_dict(),
                    "optimizer": t.optimizer.state_dict(),
                    "schedule": t.schedule.state_dict(),
                    "scaler": t.scaler.state_dict(),
                    "random": torch.get_rng_state(),
                    "random_cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
                    "losses": torch.tensor(self.losses, dtype=torch.float64),
                    "correct": self.correct,
                    "seconds": self.seconds,
                    "history": self.history,
                    "best_accuracy": self.best_accuracy,
                },
                path,
            )

    def begin(self):
        """Continues the run in --out if --resume asks for it, and sees that no run is lost otherwise. Returns a line
        that says which.

        Raises CheckpointError where a file is no whole checkpoint, or one of another run.
        """
        found = {path: checkpoint.load(path) for path in (self.last, self.best) if path.exists()}
        state = found.get(self.last)
        if not self.args.resume:
            if state and state["steps_done"] and not state["finished"]:
                raise CheckpointError(
                    f"{self.last} is a run that is not finished ({state['steps_done']} steps done): continue it with --resume, "
                    "delete the file, or name another folder with --out"
                )
            self.save(self.last)  # from now on what is to be resumed is this run
            return None
        if not state:
            self.save(self.last)
            return f"nothing to resume in {self.args.out}: this run begins"
        self._insist_on_the_same(state["run"])
        t, device = self.training, self.world.device
        t.model.load_state_dict(state["model"])
        t.optimizer.load_state_dict(state["optimizer"])
        t.schedule.load_state_dict(state["schedule"])
        t.scaler.load_state_dict(state["scaler"])
        torch.set_rng_state(state["random"])
        if device.type == "cuda" and state["random_cuda"] is not None:
            torch.cuda.set_rng_state(state["random_cuda"], device)
        t.epoch, t.step = state["epoch"], state["step"]
        self.history, self.best_accuracy = state["history"], state["best_accuracy"]
        self.losses, self.correct, self.seconds = state["losses"].tolist(), state["correct"], state["seconds"]
        return f"resumed {self.last} after {self.steps_done} of {t.of} steps"

    def _insist_on_the_same(self, run):
        for name in sorted(run.keys() | self.identity.keys()):
            then, now = run.get(name), self.identity.get(name)
            if then != now:
                option = "--" + name.replace("_", "-")
                raise CheckpointError(
                    f"{self.last} is a run with {option} {then}, not {now}: ask for the same, or name another folder with --out"
                )

    # ---- training ---------------------------------------------------------------------------------------------------

    def train(self, progress: Progress, log: Log):
        """Trains to the end. Raises Stopped after Ctrl-C or SIGTERM, when all is saved."""
        training, size = self.training, len(self.training.batches)
        with Signals() as signals:
            while training.done < training.of:
                start = time.perf_counter()
                for result in training.steps():
                    self._fresh.append(result)
                    progress.step()
                    stop = self.world.any(signals.received)
                    due = self.args.save_every and training.done % self.args.save_every == 0
                    if (stop or due) and training.step < size and training.done < training.of:
                        self.collect()
                        self.seconds, start = self.seconds + time.perf_counter() - start, time.perf_counter()
                        self.save(self.last)
                        if stop:
                            raise Stopped(
                                f"stopped after {self.steps_done} of {training.of} steps; continue with --resume",
                                signals.number,
                            )
                self.collect()  # waits for a GPU, so the time below is the whole time
                self.seconds += time.perf_counter() - start
                self.finish_epoch(progress, log)
                if self.world.any(signals.received) and training.done < training.of:
                    raise Stopped(f"stopped after epoch {training.epoch}; continue with --resume", signals.number)

    def collect(self):
        """Adds up over the processes what the steps since the last time returned."""
        if self._fresh:
            steps = self.world.sum(torch.stack(self._fresh)).cpu()
            self.losses += steps[:, 0].tolist()
            self.correct += int(steps[:, 1].sum())
            self._fresh.clear()

    def finish_epoch(self, progress, log):
        """Scores the network, and puts the epoch into checkpoints, log and terminal."""
        batches, losses = self.training.batches, torch.tensor(self.losses, dtype=torch.float64)
        images = min(len(losses) * batches.batch_size, len(batches.data.labels))
        score = self.training.score(self.test_set)
        epoch = {
            "epoch": self.training.epoch,
            "train_loss": losses.mean().item(),
            "train_accuracy": self.correct / images,
            "test_loss": score.loss,
            "test_accuracy": score.accuracy,
            "images_per_second": images / self.seconds,
            "dead": score.dead,
            "losses": losses,
        }
        self.history.append(epoch)
        self.losses, self.correct, self.seconds = [], 0, 0.0
        better = score.accuracy > self.best_accuracy
        self.best_accuracy = max(score.accuracy, self.best_accuracy)
        if better:
            self.save(self.best)  # first: a kill before the next line repeats the epoch, best.pt with it
        self.save(self.last)
        if self.world.leads:
            log.write(epoch)
        progress.line(described(epoch, -(-self.training.of // len(batches))))


def described(epoch, epochs):
    """An epoch's line for a person."""
    dead = " ".join(f"{100 * share:.0f}" for share in epoch["dead"].values())
    return (
        f"epoch {epoch['epoch']:{len(str(epochs))}}/{epochs}  "
        f"train loss {epoch['train_loss']:.4f} accuracy {100 * epoch['train_accuracy']:5.2f} %  "
        f"test loss {epoch['test_loss']:.4f} accuracy {100 * epoch['test_accuracy']:5.2f} %  "
        f"dead {dead} %  {epoch['images_per_second']:.0f} images/s"
    )


def header(args, training):
    """What the log begins with: what was asked for, and where it ran."""
    options = {
        name: str(v) if v is not None and not isinstance(v, (int, float, str)) else v for name, v in vars(args).items()
    }
    parameters = sum(p.numel() for p in training.model.parameters())
    return {
        "options": options,
        "parameters": parameters,
        "processes": training.world.size,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "convlab": convlab.__version__,
        "machine": platform.machine(),
    }


class Signals:
    """Inside the block Ctrl-C and SIGTERM are noted, for the step in progress to end; a second Ctrl-C breaks it off."""

    def __enter__(self):
        self.number = None
        self.before = {s: signal.signal(s, self._note) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def _note(self, number, frame):
        if self.number == number == signal.SIGINT:
            raise KeyboardInterrupt
        self.number = self.number or number

    @property
    def received(self):
        return self.number is not None

    def __exit__(self, *exception):
        for s, handler in self.before.items():
            signal.signal(s, handler)
