"""What makes a training robust, for scripts whose loop is in their own file: train_lenet.py, cifar_train.py.

A script has load(args), which gives the training and the test images, and train(run), a generator: it builds the
network, trains it, and yields after each step that step's (loss, right answers), after each epoch a Score. So whoever
asks for the next step decides what happens between two of them:

session      main: what a script does with its options, one of the next three
kept         a run with checkpoints, a log and pictures, that can be stopped at any moment and continued
compare      torch's layers and convlab's side by side, step by step in turns
ladder       the first steps through one algorithm after another

run          Run, what train(run) is given: its options, its images, its layers, and how far it is
batches      the order of the images and their random shifts, the same for every choice of layers, device and processes
prefetch     batches that are copied to a GPU while it trains on the one before
score        how well a network does on the test images
data         the images, as tensors: scikit-learn's digits, MNIST, CIFAR-10; shapes: those drawn from a seed
choices      the losses and the initial weights that options name
options      the command line that the scripts share
processes    one process, or those of torchrun
checkpoint   what is saved, and how it is checked when it is loaded; files: the old one or the new one, never half of it
log          the run as lines of JSON, and for TensorBoard
pictures     curves, filters, feature maps, errors
progress     a bar on a terminal, plain lines everywhere else
errors       what ends a script with one line
"""

from . import data, options
from .choices import LOSSES, initialise
from .session import main

__all__ = ["LOSSES", "data", "initialise", "main", "options"]
