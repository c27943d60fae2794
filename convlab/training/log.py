"""The run in numbers: a line of JSON for each epoch, and the same for TensorBoard."""

import json

import torch

from . import files


class Log:
    """log.jsonl in `folder`: a first line with what was asked for and where it ran, then a line for each epoch.

    It is written anew from the checkpoint's history when a run begins or continues, so it never has an epoch twice.
    """

    def __init__(self, folder, header, history, tensorboard=False):
        self.path, self.board = folder / "log.jsonl", None
        files.replace(self.path, "".join(map(_line, [header, *history])).encode())
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(folder, purge_step=len(history) + 1)

    def write(self, epoch):
        """Adds the line of an epoch, a dict of numbers and what holds numbers."""
        with open(self.path, "a") as file:
            file.write(_line(epoch))
        if self.board:
            numbers = {name: value for name, value in epoch.items() if name not in ("epoch", "losses", "dead")}
            for name, value in (numbers | {f"dead units/{name}": v for name, v in epoch["dead"].items()}).items():
                self.board.add_scalar(name, value, epoch["epoch"])
            self.board.flush()


def _line(of):
    return json.dumps(of, default=torch.Tensor.tolist) + "\n"
