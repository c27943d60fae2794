"""Training steps of two small networks: zero_grad, forward, cross-entropy, backward, SGD; torch's layers and
convert()'s."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from .._convert import convert
from ..layers import CIFAR, LENET, Conv
from .case import LAYOUTS, OURS, Case, Contestant


class Network(NamedTuple):
    """`make` builds it with torch.nn's layers; `convolutions` are those it has, `linear` the sizes of its linear
    layers."""

    name: str
    batch: int
    make: Callable
    convolutions: tuple[Conv, ...]
    linear: tuple[int, ...]

    @property
    def flops(self):
        """Of a step: three passes of every layer, but the first one's dgrad, which nobody asks for."""
        linear = sum(2 * self.batch * a * b for a, b in zip(self.linear, self.linear[1:]))
        return 3 * (sum(layer.flops for layer in self.convolutions) + linear) - self.convolutions[0].flops


def lenet5():
    """[N, 1, 32, 32] -> [N, 10]"""
    return nn.Sequential(
        nn.Conv2d(1, 6, 5),
        nn.LeakyReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.LeakyReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 120, 5),
        nn.LeakyReLU(),
        nn.Flatten(),
        nn.Linear(120, 84),
        nn.LeakyReLU(),
        nn.Linear(84, 10),
    )


def cifar():
    """[N, 3, 32, 32] -> [N, 10]"""
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1),
        nn.LeakyReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.LeakyReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(64, 128, 3, padding=1),
        nn.LeakyReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(2048, 256),
        nn.LeakyReLU(),
        nn.Linear(256, 10),
    )


NETWORKS = (
    Network("lenet-5", 256, lenet5, LENET, (120, 84, 10)),
    Network("cifar", 128, cifar, CIFAR, (2048, 256, 10)),
)


def cases(algo="auto", compiled=True):
    """algo: convert()'s. compiled: whether torch.compile of torch's layers takes part, which takes it half a minute to
    prepare."""
    return [_case(network, layout, algo, compiled) for network in NETWORKS for layout in LAYOUTS]


def _case(network, layout, algo, compiled):
    def draw():
        return {"images": torch.randn(network.convolutions[0].x), "labels": torch.randint(10, (network.batch,))}

    def binder(layout, change=lambda model: model):
        return Contestant(
            layout, lambda t: _step(change(model_of(network, layout, t["images"].dtype)), t["images"], t["labels"])
        )

    contestants = {OURS: binder(layout, lambda model: convert(model, algo))} | {
        f"torch {name}": binder(name) for name in LAYOUTS
    }
    if compiled:
        contestants |= {f"torch.compile {name}": binder(name, torch.compile) for name in LAYOUTS}
    return Case(
        "step",
        network.name,
        "step",
        layout,
        network.flops,
        0,
        draw,
        contestants,
        reference=lambda t: binder("nchw").bind(t)(),
        grad=True,
        slack=1e-5,
    )


def model_of(network, layout, dtype):
    """The same weights every time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return network.make().to(dtype=dtype, memory_format=LAYOUTS[layout])


def _step(model, images, labels):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    parameters = list(model.parameters())

    def step():
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
        return [p.grad for p in parameters]

    return step
