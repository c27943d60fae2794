"""Training steps of small networks: zero_grad, forward, cross-entropy, backward, SGD; torch's layers, and convert()'s in
fuse()'s blocks, on a GPU without them, too."""

import math
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from .._convert import convert
from .._fuse import fuse
from ..layers import CIFAR, FASHION, FLOAT, LENET, Conv
from .case import LAYOUTS, OURS, Case, Way

# Rounding decides where max pooling's gradients go, and one that goes elsewhere is an error of 1e-3, of whoever it meets.
SLACK = {"float32": 5e-3, "tf32": 1e-2, "bfloat16": 2e-2}


class Network(NamedTuple):
    """`make` builds it with torch.nn's layers; `convolutions` are those it has, `linear` the sizes of its linear
    layers."""

    name: str
    batch: int
    make: Callable
    convolutions: tuple[Conv, ...]
    linear: tuple[int, ...]

    @property
    def x(self):
        return self.convolutions[0].x

    @property
    def flops(self):
        """Of a step: three passes of every layer, but the first one's dgrad, which nobody asks for."""
        linear = sum(2 * self.batch * a * b for a, b in zip(self.linear, self.linear[1:]))
        return 3 * (sum(layer.flops for layer in self.convolutions) + linear) - self.convolutions[0].flops

    def batched(self, N, name=None):
        """The network with that batch."""
        convolutions = tuple(layer._replace(N=N) for layer in self.convolutions)
        return self._replace(name=name or f"{self.name}@{N}", batch=N, convolutions=convolutions)


def _block(C, K, R, padding=0):
    return nn.Conv2d(C, K, R, padding=padding), nn.LeakyReLU()


def lenet5():
    """[N, 1, 32, 32] -> [N, 10]"""
    features = *_block(1, 6, 5), nn.MaxPool2d(2), *_block(6, 16, 5), nn.MaxPool2d(2), *_block(16, 120, 5)
    return nn.Sequential(*features, nn.Flatten(), nn.Linear(120, 84), nn.LeakyReLU(), nn.Linear(84, 10))


def fashion():
    """A GPU course's network: [N, 1, 86, 86], Fashion-MNIST enlarged, -> [N, 10]"""
    features = *_block(1, 4, 7), nn.MaxPool2d(2), *_block(4, 16, 7), nn.MaxPool2d(2)
    return nn.Sequential(*features, nn.Flatten(), nn.Linear(4624, 32), nn.LeakyReLU(), nn.Linear(32, 10))


def cifar():
    """[N, 3, 32, 32] -> [N, 10]"""
    features = [(*_block(C, K, 3, 1), nn.MaxPool2d(2)) for C, K in ((3, 32), (32, 64), (64, 128))]
    head = nn.Flatten(), nn.Linear(2048, 256), nn.LeakyReLU(), nn.Linear(256, 10)
    return nn.Sequential(*(layer for block in features for layer in block), *head)


LENET_5, FASHION_86, CIFAR_10 = (
    Network("lenet-5", 256, lenet5, LENET, (120, 84, 10)),
    Network("fashion", 256, fashion, FASHION, (4624, 32, 10)),
    Network("cifar", 128, cifar, CIFAR, (2048, 256, 10)),
)
NETWORKS = LENET_5, FASHION_86, CIFAR_10
GPU_NETWORKS = LENET_5.batched(1024), LENET_5.batched(10000), FASHION_86.batched(1024), CIFAR_10.batched(512)


def step(network, layout, precision, backend, algo="auto", compiled=True) -> Case:
    """bfloat16 is autocast's: weights, and what the optimizer does, stay float32; in TF32, linear layers multiply so, too.
    On a GPU everybody's step is called one by one and as a graph. compiled: whether torch.compile takes part in float32;
    it takes up to a minute to prepare."""
    half, gpu = precision == "bfloat16", backend == "cuda"

    def draw():
        return {"images": torch.randn(network.x), "labels": torch.randint(10, (network.batch,))}

    def binder(layout, change=lambda model: model):
        return lambda t: _step(change(model_of(network, layout, t["images"].dtype)), t, half)

    unfused = partial(convert, algo=algo)
    makers = {OURS: (layout, precision, lambda model: fuse(unfused(model)))}
    if gpu:
        makers[f"{OURS} unfused"] = layout, precision, unfused
    makers |= {f"torch {name}": (name, precision) for name in LAYOUTS}
    ways = {}
    for name, (layout_, precision_, *change) in makers.items():
        ways[name] = Way(layout_, binder(layout_, *change), precision_, capture=False)
        if gpu:
            ways[f"{name} graph"] = ways[name]._replace(capture=True)
    if compiled and precision == "float32":
        for name in ["nchw"] if gpu else LAYOUTS:
            ways[f"torch.compile {name}"] = Way(name, binder(name, torch.compile), precision, capture=False)
    # bytes; the rest need not leave a GPU's caches. Where nobody counted operations these alone say nothing.
    images = FLOAT * math.prod(network.x) if network.flops else 0
    head = "step", network.name, "step", layout, precision
    return Case(*head, network.flops, images, draw, ways, binder("nchw"), grad=True, slack=SLACK[precision])


def model_of(network, layout, dtype):
    """The same weights every time."""
    with torch.random.fork_rng(), torch.device("cpu"):
        torch.manual_seed(0)
        return network.make().to(dtype=dtype, memory_format=LAYOUTS[layout])


def _step(model, t, half):
    """A step that leaves the weights as they are, so that every call of everybody's makes the same gradients."""
    images, labels = t["images"], t["labels"]
    model = model.to(images.device)
    parameters = list(model.parameters())
    optimizer = torch.optim.SGD(parameters, lr=0.0)

    def step():
        optimizer.zero_grad(set_to_none=True)
        half_here = half and images.dtype == torch.float32
        with torch.autocast(images.device.type, torch.bfloat16) if half_here else nullcontext():
            loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        return [p.grad for p in parameters]

    return step
