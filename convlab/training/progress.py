"""Telling a person how far the training is."""

import sys
import time

from tqdm import tqdm

QUIET = 60  # seconds after which a pipe gets a line within an epoch


class Progress(tqdm):
    """A bar of `steps` on stderr where that is a terminal; lines on stdout, which stay.

    Elsewhere there is no bar but a line in every minute that had none, so `train 2>&1 | tee log` gives a log of whole
    lines, each there as soon as it is printed. shown=False: neither, for all processes but the first.
    """

    def __init__(self, steps, done=0, shown=True):
        hidden = None if shown else True  # None: where stderr is no terminal
        super().__init__(total=steps, initial=done, unit="step", disable=hidden, leave=False, dynamic_ncols=True)
        self.steps, self.done, self.shown = steps, done, shown
        self.last_line = time.monotonic()

    def step(self):
        """Call after every step."""
        self.done += 1
        self.update()
        if self.disable and time.monotonic() - self.last_line > QUIET:
            self.line(f"step {self.done} of {self.steps}")

    def line(self, text):
        """Prints a line above the bar."""
        if self.shown:
            self.write(text, file=sys.stdout)
            sys.stdout.flush()
        self.last_line = time.monotonic()
