"""The run in numbers: a line of JSON for each epoch, and the same for TensorBoard."""

import json
from pathlib import Path

import torch

from . import files


class Log:
    """log.jsonl in `folder`: a first line with what was asked for and where it ran, then a line for each epoch.

    It is written anew from the checkpoint's history when a run begins or continues, so it never has an epoch twice.
    """

    def __init__(self, folder, header, history, tensorboard=False):
        self.path = Path(folder) / "log.jsonl"
        files.replace(self.path, lambda file: file.writelines(_line(of).encode() for of in [header, *history]))
        self.board = None
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(folder, purge_step=len(history) + 1)

    def write(self, epoch):
        """Adds the line of an epoch, a dict of numbers and what holds numbers."""
        with open(self.path, "a") as file:
            file.write(_line(epoch))
        if self.board:
            for name, value in epoch.items():
                if name == "dead":
                    for layer, share in value.items():
                        self.board.add_scalar(f"dead units/{layer}", share, epoch["epoch"])
                elif name not in ("epoch", "losses"):
                    self.board.add_scalar(name, value, epoch["epoch"])
            self.board.flush()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        if self.board:
            self.board.close()


def _line(of):
    return json.dumps(of, default=torch.Tensor.tolist) + "\n"
