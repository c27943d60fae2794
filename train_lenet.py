#!/usr/bin/env python3
"""Trains LeNet-5 on handwritten digits, with convlab's layers or, for comparison, with torch's.

python train_lenet.py                                   # scikit-learn's 1797 digits, on the CPU
python train_lenet.py --data mnist --device cuda --batch-size 128 --lr 0.05
python train_lenet.py --plots pictures --resume         # continue where the last run was stopped; draw
python train_lenet.py --compare                         # torch.nn and convlab side by side
python train_lenet.py --algo all --steps 4 --simulate   # the first steps through every CUDA kernel, without a GPU
torchrun --nproc-per-node 2 train_lenet.py              # two processes, the same losses
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: threads that wait leave their core to others

from collections import OrderedDict

import torch
from torch import nn

import convlab
from convlab import training
from convlab.training import LOSSES, data, initialise, options

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
    """(training set, test set): images [N, 1, 32, 32] from 0 (paper) to 1 (ink), labels [N]."""
    return data.digits() if args.data == "digits" else data.mnist(args.data_dir)


def train(run):
    """The training. Yields each step's loss and right answers, and after each epoch the score on the test images.

    It runs from one yield to the next: between them convlab.training saves, logs, stops, or lets another training have
    its turn. With torchrun, each process has its part of a batch's n images, and the gradients are added up.
    """
    args = run.args
    torch.manual_seed(args.seed)
    model = initialise(lenet5(run.layers), args.init)
    network = run.network(model)  # the model as --device, --amp, --compile ... want it
    batches = run.batches(max_shift=MAX_SHIFT)
    if args.optimizer == "sgd":
        optimizer = torch.optim.SGD(model.parameters(), args.lr, momentum=0.9, weight_decay=1e-3)
    else:
        optimizer = torch.optim.AdamW(model.parameters(), args.lr, weight_decay=5e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.lr, total_steps=run.steps)
    scaler = torch.amp.GradScaler(args.device.type, enabled=args.amp == "fp16")
    loss_of = LOSSES[args.loss]
    run.keep(optimizer=optimizer, schedule=schedule, scaler=scaler)  # in checkpoints; with --resume it comes from one

    for epoch in run.epochs(batches):
        for images, labels, n in epoch:
            outputs = network(images)
            loss = loss_of(outputs, labels).sum() / n
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            schedule.step()
            yield loss, outputs.argmax(1) == labels
        yield run.score(loss_of)


def parse(argv=None):
    """The command line's choices, see `--help`."""
    return options.parse(options.parser(__doc__, EPOCHS, out="runs/lenet", batch_size=16, lr=LEARNING_RATE), argv)


if __name__ == "__main__":
    training.main("LeNet-5", load, train, parse())
