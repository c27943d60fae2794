"""Six of torchvision's models, whole: training steps and inference, by fuse() and as they are; and inference compiled."""

import dataclasses
from functools import partial
from typing import NamedTuple

import torch

from .._fuse import fuse
from .case import LAYOUTS, OURS, Case, Way
from .networks import model_of, step

NAMES = "resnet18", "vgg11", "squeezenet1_1", "mobilenet_v2", "densenet121", "resnext50_32x4d"
BATCH, SIZE = 8, 112  # images of a batch, and their height and width
SLACK = 1e-2  # where rounding decides the sign of what a ReLU gets, gradients differ; wrong is wronger


class Model(NamedTuple):
    """What step() asks of a network. Nobody counts its operations."""

    name: str
    batch: int = BATCH
    x: tuple[int, ...] = (BATCH, 3, SIZE, SIZE)
    flops: int = 0

    def make(self):
        """Without dropout, so that every call of everybody's answers the same question."""
        import torchvision

        model = torchvision.models.get_model(self.name)
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        return model


def models(algo="auto", compiled=True) -> list[Case]:
    """compiled: whether there are rows of compiled models, a minute each. Raises ImportError where there is no
    torchvision."""
    import torchvision  # noqa: F401

    found = []
    for model in map(Model, NAMES):
        for layout in LAYOUTS:
            case = step(model, layout, "float32", "cpu", algo, compiled=False)
            found += [dataclasses.replace(case, slack=SLACK), inference(model, layout, algo)]
        if compiled:
            found.append(inference(model, "channels_last", algo, compiled=True))
    return found


def inference(model, layout, algo="auto", compiled=False) -> Case:
    """The model in eval mode, where nobody wants gradients. compiled: by torch.compile, and torch's both with and without
    it."""

    def bind(layout, change, t):
        network = change(model_of(model, layout, t["images"].dtype).eval())
        return lambda: network(t["images"])

    def ours(network):
        network = fuse(network, algo)
        return torch.compile(network) if compiled else network

    def itself(network):
        return network

    ways = {OURS: Way(layout, partial(bind, layout, ours))}
    for name in LAYOUTS:
        ways[f"torch {name}"] = Way(name, partial(bind, name, itself))
        if compiled:
            ways[f"torch.compile {name}"] = Way(name, partial(bind, name, torch.compile))
    kind = "compiled" if compiled else "inference"
    head = kind, model.name, kind, layout, "float32"

    def draw():
        return {"images": torch.randn(model.x)}

    return Case(*head, 0, 0, draw, ways, partial(bind, "nchw", itself), slack=SLACK)
