"""A run that can be stopped at any moment and continued: checkpoints, the log, pictures."""

import platform
import signal
import time
from contextlib import ExitStack

import torch

import convlab

from . import checkpoint
from .errors import CheckpointError
from .files import sole_use_of
from .log import Log
from .progress import Progress
from .run import Run
from .score import Score

# What decides a run's numbers, but for their rounding: a run is continued with the same, wherever and by however many
# processes.
WHAT = ("data", "model", "images", "init", "seed", "layers")
HOW = ("epochs", "steps", "batch_size", "optimizer", "lr", "loss", "amp")
SO_FAR = ["history", "best_accuracy", "losses", "correct", "seconds"]


class Stopped(Exception):
    """Someone pressed Ctrl-C or sent SIGTERM, and the run is saved. `signal` is the signal's number."""

    def __init__(self, message, number):
        super().__init__(f"{message}; continue with --resume")
        self.signal = number or signal.SIGTERM  # or: another process had it


class KeptRun(Run):
    """A Run, and what is known of it so far: a dict for each epoch, the best accuracy, the epoch in progress."""

    def __init__(self, name, args, sets, world):
        super().__init__(args, sets, world)
        self.name, self.last, self.best = name, args.out / "last.pt", args.out / "best.pt"
        self.identity = {name: getattr(args, name) for name in WHAT + HOW if hasattr(args, name)}
        self.history, self.best_accuracy = [], -1.0
        self._begin_epoch()
        self._fresh = []  # what steps gave that is not yet in `losses` and `correct`

    def _begin_epoch(self):
        """Of the epoch in progress: each step's loss, the right answers, the seconds."""
        self.losses, self.correct, self.seconds = torch.zeros(0, dtype=torch.float64), 0, 0.0

    # ---- training ---------------------------------------------------------------------------------------------------

    def train(self, train):
        """Takes the script's loop to its end, then draws. Raises Stopped after Ctrl-C or SIGTERM, when all is saved."""
        with ExitStack() as self.stack, Signals() as self.signals:
            if self.world.leads:
                self.stack.enter_context(sole_use_of(self.args.out))
            for result in train(self):
                if isinstance(result, Score):
                    self.finish_epoch(result)
                else:
                    self.finish_step(*result)
            if self.args.plots:
                self.draw(self.score())
            self.progress.line(f"kept {self.last}, {self.best}, {self.args.out / 'log.jsonl'}")
            self.progress.line(f"test accuracy {100 * self.history[-1]['test_accuracy']:.2f} %")

    def keep(self, **parts):
        """The loop is about to begin: continues the run in --out if --resume asks for it, and says so."""
        super().keep(**parts)
        resumed, about = self._begin(), self._about()
        if self.world.leads:
            self.log = Log(self.args.out, about, self.history, self.args.tensorboard)
        self.progress = self.stack.enter_context(Progress(self.steps, self.done, shown=self.world.leads))
        what = f"{self.name}, {about['parameters']:,} parameters, layers of {self.args.layers} on {self.world.device}"
        processes = f", {self.world.size} processes" if self.world.size > 1 else ""
        self.progress.line(f"{what}{processes}: {self.steps} steps, {self.per_epoch} an epoch")
        if resumed:
            self.progress.line(resumed)
        self.since = time.perf_counter()

    def finish_step(self, loss, right):
        """Notes a step; saves where that is due, and stops where that was asked for."""
        self._fresh.append(torch.stack([loss.detach().double(), right.sum().double()]))
        self.progress.step()
        stop = self.world.any(self.signals.number)
        due = self.args.save_every and self.done % self.args.save_every == 0
        if self.done % self.per_epoch == 0 or self.done == self.steps:
            self.collect()  # and the Score comes next: what is saved then has both
        elif stop or due:
            self.save(self.last)
            if stop:
                raise Stopped(f"stopped after {self.done} of {self.steps} steps", self.signals.number)

    def collect(self):
        """Adds up over the processes what the steps since the last time gave. That waits for a GPU, so `seconds` is the
        whole time; reading every step's loss would make the GPU wait for Python."""
        if self._fresh:
            steps = self.world.sum(torch.stack(self._fresh)).cpu()
            self.losses = torch.cat([self.losses, steps[:, 0]])
            self.correct += int(steps[:, 1].sum())
            self._fresh.clear()
            self.seconds, self.since = self.seconds + time.perf_counter() - self.since, time.perf_counter()

    def finish_epoch(self, score):
        """Puts the epoch into checkpoints, log and terminal."""
        images = min(len(self.losses) * self.args.batch_size, len(self.train_set.labels))
        epoch = {
            "epoch": len(self.history) + 1,
            "train_loss": self.losses.mean().item(),
            "train_accuracy": self.correct / images,
            "test_loss": score.loss,
            "test_accuracy": score.accuracy,
            "images_per_second": images / self.seconds,
            "dead": score.dead,
            "losses": self.losses,
        }
        self.history.append(epoch)
        self._begin_epoch()
        if score.accuracy > self.best_accuracy:
            self.best_accuracy = score.accuracy
            self.save(self.best)  # first: a kill before the next line repeats the epoch, best.pt with it
        self.save(self.last)
        if self.world.leads:
            self.log.write(epoch)
        self.progress.line(described(epoch, -(-self.steps // self.per_epoch)))
        if self.world.any(self.signals.number) and self.done < self.steps:
            raise Stopped(f"stopped after epoch {epoch['epoch']}", self.signals.number)
        self.since = time.perf_counter()

    def draw(self, score):
        """training.png, features.png and confusion.png."""
        if self.world.leads:
            from . import pictures  # which needs matplotlib

            drawn = pictures.draw(self.args.plots, self.name, self.model, self.history, score, self.test_set)
            self.progress.line(f"drew {', '.join(map(str, drawn))}")

    def _about(self):
        """What the log begins with: what was asked for, and where it ran."""
        options = {k: v if v is None or isinstance(v, (int, float)) else str(v) for k, v in vars(self.args).items()}
        return {
            "options": options,
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "processes": self.world.size,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "convlab": convlab.__version__,
            "machine": platform.machine(),
        }

    # ---- checkpoints ------------------------------------------------------------------------------------------------

    def save(self, path):
        """Writes all that a later process needs to continue bit for bit."""
        self.collect()
        if self.world.leads:
            cuda, random = self.world.device.type == "cuda", torch.get_rng_state()
            random_cuda = torch.cuda.get_rng_state(self.world.device) if cuda else None
            state = {"run": self.identity, "steps_done": self.done, "finished": self.done == self.steps}
            state |= {"random": random, "random_cuda": random_cuda}
            state |= {name: part.state_dict() for name, part in self.parts.items()}
            checkpoint.save(state | {name: getattr(self, name) for name in SO_FAR}, path)

    def _begin(self):
        """Continues the run in --out if --resume asks for it, and sees that no run is lost otherwise. Returns a line
        that says which.

        Raises CheckpointError where a file is no whole checkpoint, or one of another run.
        """
        found = {path: checkpoint.load(path) for path in (self.last, self.best) if path.exists()}
        state = found.get(self.last)
        if self.args.resume and state:
            self._insist_on_the_same(state["run"])
            self._continue(state)
            return f"resumed {self.last} after {self.done} of {self.steps} steps"
        if state and state["steps_done"] and not state["finished"]:
            what = f"{self.last} is a run that is not finished ({state['steps_done']} steps done)"
            raise CheckpointError(
                f"{what}: continue it with --resume, delete the file, or name another folder with --out"
            )
        self.save(self.last)  # from now on what is to be resumed is this run
        return f"nothing to resume in {self.args.out}: this run begins" if self.args.resume else None

    def _insist_on_the_same(self, run):
        for name in sorted(run.keys() | self.identity.keys()):
            then, now = run.get(name), self.identity.get(name)
            if then != now:
                what = f"{self.last} is a run with --{name.replace('_', '-')} {then}, not {now}"
                raise CheckpointError(f"{what}: ask for the same, or name another folder with --out")

    def _continue(self, state):
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
        for name in SO_FAR:
            setattr(self, name, state[name])
        self.done = state["steps_done"]
        torch.set_rng_state(state["random"])
        if self.world.device.type == "cuda" and state["random_cuda"] is not None:
            torch.cuda.set_rng_state(state["random_cuda"], self.world.device)


def described(epoch, epochs):
    """An epoch's line for a person."""
    dead = " ".join(f"{100 * share:.0f}" for share in epoch["dead"].values())
    return (
        f"epoch {epoch['epoch']:{len(str(epochs))}}/{epochs}  "
        f"train loss {epoch['train_loss']:.4f} accuracy {100 * epoch['train_accuracy']:5.2f} %  "
        f"test loss {epoch['test_loss']:.4f} accuracy {100 * epoch['test_accuracy']:5.2f} %  "
        f"dead {dead} %  {epoch['images_per_second']:.0f} images/s"
    )


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

    def __exit__(self, *exception):
        for s, handler in self.before.items():
            signal.signal(s, handler)
