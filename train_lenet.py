#!/usr/bin/env python3
"""Trains LeNet-5 on handwritten digits, with convlab's layers or, for comparison, with torch's.

    python train_lenet.py                    # scikit-learn's 1797 digits, on the CPU
    python train_lenet.py --data mnist --device cuda
"""

import argparse
import sys
import time

import torch
from torch import nn

import convlab
from convlab.training import arguments, checkpoint
from convlab.training.batches import Batches
from convlab.training.data import DataError, digits, mnist
from convlab.training.loop import Training, evaluate
from convlab.training.progress import Progress

EPOCHS = {"digits": 25, "mnist": 5}  # 2275 and 18750 steps of 16 images
MAX_SHIFT = 3  # pixels of 32: as far as a digit goes without leaving the image


def lenet5(layers, **conv_options):
    """LeNet-5 (LeCun et al., 1998) with leaky ReLU and max pooling: [N, 1, 32, 32] -> [N, 10].

    `layers` is where Conv2d, MaxPool2d and LeakyReLU come from: convlab or torch.nn.
    """
    return nn.Sequential(
        layers.Conv2d(1, 6, 5, **conv_options),  # C1 [N, 6, 28, 28]
        layers.LeakyReLU(),
        layers.MaxPool2d(2),  # [N, 6, 14, 14]
        layers.Conv2d(6, 16, 5, **conv_options),  # C3 [N, 16, 10, 10]
        layers.LeakyReLU(),
        layers.MaxPool2d(2),  # [N, 16, 5, 5]
        layers.Conv2d(16, 120, 5, **conv_options),  # C5 [N, 120, 1, 1]
        layers.LeakyReLU(),
        nn.Flatten(),
        nn.Linear(120, 84),  # F6
        layers.LeakyReLU(),
        nn.Linear(84, 10),
    )


def parse(argv=None):
    """The command line's choices; what makes no sense ends the program with a line that says why."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", choices=EPOCHS, default="digits", help="default: digits")
    add("--data-dir", default="data", help="where MNIST is, or goes when it is downloaded (default: data)")
    add("--layers", choices=["convlab", "torch"], default="convlab", help="whose layers; same weights, same batches")
    add("--algo", help="the convolution algorithm, one of convlab.algorithms() (default: convlab's choice)")
    add("--device", type=arguments.device, default="cpu", help="cpu (default), cuda or cuda:N")
    add("--epochs", type=arguments.whole_number(1), 
        help="passes over the training images (default: " + ", ".join(f"{n} for {d}" for d, n in EPOCHS.items()) + ")")
    add("--batch-size", type=arguments.whole_number(1), default=16, help="images per step (default: 16)")
    add("--lr", type=arguments.positive, default=0.02, help="the schedule's highest learning rate (default: 0.02)")
    add("--seed", type=arguments.whole_number(0), default=0, help="for the weights, the order, the shifts (default: 0)")
    add("--checkpoint", type=arguments.output_file, default="checkpoints/lenet.pt", help="default: %(default)s")
    args = parser.parse_args(argv)
    if args.algo is not None:
        names = [algorithm.name for algorithm in convlab.algorithms() if args.device.type in algorithm.backends]
        if args.layers == "torch":
            parser.error("argument --algo: torch's layers have no choice of algorithm; leave out --layers torch")
        if args.algo not in names:
            parser.error(f"argument --algo: {args.algo!r} is no algorithm for {args.device.type}, "
                         f"choose from: {', '.join(names)}")
    args.epochs = args.epochs or EPOCHS[args.data]
    return args


def prepare(args):
    """(Training, test images): the same weights, order and shifts for the same seed, whatever the layers."""
    train_set, test_set = digits() if args.data == "digits" else mnist(args.data_dir)
    batches = Batches(train_set.to(args.device), args.batch_size, MAX_SHIFT, args.seed)
    torch.manual_seed(args.seed)
    layers, options = (torch.nn, {}) if args.layers == "torch" else (convlab, {"algo": args.algo or "auto"})
    model = lenet5(layers, **options).to(args.device)
    optimizer = torch.optim.SGD(model.parameters(), lr=args.lr, momentum=0.9, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.lr, total_steps=args.epochs * len(batches))
    return Training(model, batches, optimizer, schedule), test_set.to(args.device)


def main(argv=None):
    args = parse(argv)
    try:
        training, test_set = prepare(args)
    except DataError as error:
        sys.exit(f"train_lenet.py: {error}")
    images = len(training.batches.data.labels)
    print(f"LeNet-5 of {args.layers} layers on {args.device}, {args.data}: {images} training and "
          f"{len(test_set.labels)} test images, {args.epochs} epochs of {len(training.batches)} steps", flush=True)
    with Progress(args.epochs * len(training.batches)) as progress:
        for epoch in range(1, args.epochs + 1):
            start, losses = time.perf_counter(), []
            for loss in training.epoch():
                losses.append(loss)
                progress.step()
            loss = torch.stack(losses).mean().item()  # waits for a GPU, so the time below is the whole time
            speed = images / (time.perf_counter() - start)
            score = evaluate(training.model, test_set)
            progress.line(f"epoch {epoch:3}/{args.epochs}  train loss {loss:.4f}  test loss {score.loss:.4f}  "
                          f"test accuracy {100 * score.accuracy:5.2f} %  {speed:5.0f} images/s")
    checkpoint.save({"model": training.model.state_dict(), "accuracy": score.accuracy,
                     "arguments": {name: value if isinstance(value, (int, float)) else str(value)
                                   for name, value in vars(args).items()}}, args.checkpoint)
    print(f"wrote {args.checkpoint}")
    print(f"test accuracy {100 * score.accuracy:.2f} %")


if __name__ == "__main__":
    main()
