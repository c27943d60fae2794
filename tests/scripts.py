"""The training scripts, for tests: loaded from where they lie, run in this process with tiny tasks."""

import importlib.util
import json
import sys
from pathlib import Path

from convlab import training

ROOT = Path(__file__).resolve().parent.parent
LENET, CIFAR = ROOT / "train_lenet.py", ROOT / "cifar_train.py"


def _load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # where pickle looks for what a worker process needs
    spec.loader.exec_module(module)
    return module


train_lenet, cifar_train = _load(LENET), _load(CIFAR)


def lenet(*argv):
    """What `train_lenet.py ARGV` does."""
    training.main("LeNet-5", train_lenet.load, train_lenet.train, train_lenet.parse([str(a) for a in argv]))


def cifar(*argv):
    """What `cifar_train.py ARGV` does."""
    args = cifar_train.parse([str(a) for a in argv])
    training.main(args.model, cifar_train.load, cifar_train.train, args)


def log(folder):
    """(first line, a dict for each epoch) of a run's log."""
    header, *epochs = (json.loads(line) for line in (Path(folder) / "log.jsonl").read_text().splitlines())
    return header, epochs


def losses(folder):
    """The loss of every step of a run."""
    return [loss for epoch in log(folder)[1] for loss in epoch["losses"]]
