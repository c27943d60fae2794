"""Telling a person how far the training is."""

import sys

from tqdm import tqdm


class Progress:
    """A bar of `steps` on stderr where that is a terminal, none elsewhere; lines on stdout, which stay, in both cases.

    So `train 2>&1 | tee log` gives a log of whole lines, each there as soon as it is printed.
    """

    def __init__(self, steps):
        self.bar = tqdm(total=steps, unit="step", disable=None, leave=False, dynamic_ncols=True)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.bar.close()

    def step(self):
        """Call after every step."""
        self.bar.update()

    def line(self, text):
        """Prints a line above the bar."""
        self.bar.write(text, file=sys.stdout)
        sys.stdout.flush()
