"""Telling a person how far the training is."""

import sys
import time

from tqdm import tqdm

QUIET = 60  # seconds after which a pipe gets a line within an epoch


class Progress:
    """A bar of `steps` on stderr where that is a terminal; lines on stdout, which stay.

    Elsewhere there is no bar but a line in every minute that had none, so `train 2>&1 | tee log` gives a log of whole
    lines, each there as soon as it is printed. shown=False: neither, for all processes but the first.
    """

    def __init__(self, steps, done=0, shown=True):
        self.bar = tqdm(
            total=steps, initial=done, unit="step", disable=None if shown else True, leave=False, dynamic_ncols=True
        )
        self.steps, self.done, self.shown = steps, done, shown
        self.last_line = time.monotonic()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.bar.close()

    def step(self):
        """Call after every step."""
        self.done += 1
        self.bar.update()
        if self.bar.disable and time.monotonic() - self.last_line > QUIET:
            self.line(f"step {self.done} of {self.steps}")

    def line(self, text):
        """Prints a line above the bar."""
        if self.shown:
            self.bar.write(text, file=sys.stdout)
            sys.stdout.flush()
        self.last_line = time.monotonic()
