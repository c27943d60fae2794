#!/usr/bin/env python3
"""Trains LeNet-5 on handwritten digits, with convlab's layers or, for comparison, with torch's.

python train_lenet.py                                   # scikit-learn's 1797 digits, on the CPU
python train_lenet.py --data mnist --device cuda --batch-size 128 --lr 0.05
python train_lenet.py --plots pictures --resume         # continue where the last run was stopped; draw
python train_lenet.py --compare                         # torch.nn and convlab side by side
python train_lenet.py --algo all --steps 4 --simulate   # the first steps through every CUDA kernel, without a GPU
torchrun --nproc-per-node 2 train_lenet.py              # two processes, the same losses
"""

from collections import OrderedDict

from torch import nn

import convlab
from convlab.training import data, options, session

EPOCHS = {"digits": 25, "mnist": 5}  # 2275 and 18750 steps of 16 images
LEARNING_RATE = {"sgd": 0.02, "adamw": 0.002}  # for batches of 16
MAX_SHIFT = 3  # pixels of 32: as far as a digit goes without leaving the image


def lenet5(layers=convlab):
    """LeNet-5 (LeCun et al., 1998) with leaky ReLU and max pooling: [N, 1, 32, 32] -> [N, 10].

    `layers` is where Conv2d, MaxPool2d and LeakyReLU come from: convlab or torch.nn.
    """
    return nn.Sequential(
        OrderedDict(
            C1=layers.Conv2d(1, 6, 5),  # [N, 6, 28, 28]
            A1=layers.LeakyReLU(),
            S2=layers.MaxPool2d(2),  # [N, 6, 14, 14]
            C3=layers.Conv2d(6, 16, 5),  # [N, 16, 10, 10]
            A3=layers.LeakyReLU(),
            S4=layers.MaxPool2d(2),  # [N, 16, 5, 5]
            C5=layers.Conv2d(16, 120, 5),  # [N, 120, 1, 1]
            A5=layers.LeakyReLU(),
            flat=nn.Flatten(),
            F6=nn.Linear(120, 84),
            A6=layers.LeakyReLU(),
            output=nn.Linear(84, 10),
        )
    )


def load(args):
    """(training set, test set): see convlab/training/data.py."""
    return data.digits() if args.data == "digits" else data.mnist(args.data_dir)


TASK = session.Task("LeNet-5", load, lambda args, layers: lenet5(layers), MAX_SHIFT)


def parse(argv=None):
    """The command line's choices, see `--help`."""
    return options.parse(options.parser(__doc__, EPOCHS, out="runs/lenet", batch_size=16, lr=LEARNING_RATE), argv)


if __name__ == "__main__":
    session.main(TASK, parse())
