#!/usr/bin/env python3
"""Trains a network on CIFAR-10, or on built-in images if it is not available, with convlab's layers or with torch's.

python cifar_train.py                                   # CIFAR-10 in data/ or downloaded, else the built-in images
python cifar_train.py --data builtin --plots pictures
python cifar_train.py --model resnet --device cuda --amp bf16 --channels-last --batch-size 256 --epochs 30
torchrun --nproc-per-node 4 cifar_train.py --device cuda --workers 2
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: threads that wait leave their core to others

from collections import OrderedDict

import torch
from torch import nn

import convlab
from convlab import training
from convlab.training import LOSSES, data, initialise, options

EPOCHS = {"auto": 12, "cifar10": 12, "builtin": 12}
LEARNING_RATE = {"adamw": 0.002, "sgd": 0.05}  # for batches of 64
MAX_SHIFT = 4  # pixels of 32


def convnet(layers=convlab):
    """Three blocks of convolution, leaky ReLU and max pooling, then two linear layers: [N, 3, 32, 32] -> [N, 10]."""
    return nn.Sequential(
        OrderedDict(
            conv1=layers.Conv2d(3, 32, 5, padding=2),
            act1=layers.LeakyReLU(),
            pool1=layers.MaxPool2d(2),  # [N, 32, 16, 16]
            conv2=layers.Conv2d(32, 64, 3, padding=1),
            act2=layers.LeakyReLU(),
            pool2=layers.MaxPool2d(2),  # [N, 64, 8, 8]
            conv3=layers.Conv2d(64, 128, 3, padding=1),
            act3=layers.LeakyReLU(),
            pool3=layers.MaxPool2d(2),  # [N, 128, 4, 4]
            flat=nn.Flatten(),
            linear1=nn.Linear(2048, 256),
            act4=layers.LeakyReLU(),
            linear2=nn.Linear(256, 10),
        )
    )


class Residual(nn.Module):
    """y = act(x' + conv(act(conv(x)))) with batch norm; x' is x, or where size or channels change, a strided 1x1
    convolution of it."""

    def __init__(self, layers, inputs, outputs, stride):
        super().__init__()
        self.conv1 = layers.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm1, self.act1 = nn.BatchNorm2d(outputs), layers.LeakyReLU()
        self.conv2 = layers.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2, self.act2 = nn.BatchNorm2d(outputs), layers.LeakyReLU()
        self.shortcut = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                layers.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x):
        """[N, inputs, H, W] -> [N, outputs, ceil(H / stride), ceil(W / stride)]"""
        y = self.norm2(self.conv2(self.act1(self.norm1(self.conv1(x)))))
        return self.act2(y + self.shortcut(x))


def resnet(layers=convlab):
    """A small residual network after He et al. (2016), with leaky ReLU: [N, 3, 32, 32] -> [N, 10]."""
    return nn.Sequential(
        OrderedDict(
            conv1=layers.Conv2d(3, 32, 3, padding=1, bias=False),
            norm1=nn.BatchNorm2d(32),
            act1=layers.LeakyReLU(),  # [N, 32, 32, 32]
            block1=Residual(layers, 32, 32, stride=1),
            block2=Residual(layers, 32, 64, stride=2),  # [N, 64, 16, 16]
            block3=Residual(layers, 64, 128, stride=2),  # [N, 128, 8, 8]
            pool=layers.AvgPool2d(8),
            flat=nn.Flatten(),
            linear=nn.Linear(128, 10),
        )
    )


MODELS = {"convnet": convnet, "resnet": resnet}


def load(args):
    """(training set, test set): images [N, 3, 32, 32] from -2 to 2, labels [N]."""
    if args.data == "builtin":
        return data.drawn(args.images)
    return data.cifar10(args.data_dir) if args.data == "cifar10" else data.cifar10_or_drawn(args.data_dir, args.images)


def train(run):
    """The training. Yields each step's loss and right answers, and after each epoch the score on the test images.

    It runs from one yield to the next: between them convlab.training saves, logs, stops, or lets another training have
    its turn. With torchrun, each process has its part of a batch's n images, and the gradients are added up.
    """
    args = run.args
    torch.manual_seed(args.seed)
    model = initialise(MODELS[args.model](run.layers), args.init)
    network = run.network(model)  # the model with --device, --amp, --compile ... applied
    batches = run.batches(max_shift=MAX_SHIFT, flip=True)
    if args.optimizer == "sgd":
        optimizer = torch.optim.SGD(model.parameters(), args.lr, momentum=0.9, weight_decay=1e-3)
    else:
        optimizer = torch.optim.AdamW(model.parameters(), args.lr, weight_decay=5e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.lr, total_steps=run.steps)
    scaler = torch.amp.GradScaler(args.device.type, enabled=args.amp == "fp16")
    loss_of = LOSSES[args.loss]
    run.keep(optimizer=optimizer, schedule=schedule, scaler=scaler)  # saved in checkpoints, restored with --resume

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
    parser = options.parser(__doc__, EPOCHS, out="runs/cifar", batch_size=64, lr=LEARNING_RATE, models=MODELS)
    return options.parse(parser, argv)


if __name__ == "__main__":
    args = parse()
    training.main(args.model, load, train, args)
