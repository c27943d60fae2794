"""Whole training steps on a GPU: eager, compiled by torch.compile, and as one CUDA graph; torch's layers and
convert()'s."""

import torch
from torch import nn
from torch.nn import functional as F

from ..._convert import convert
from ..case import LAYOUTS, OURS
from ..steps import NETWORKS, Network, model_of
from .case import Case, Way

BATCHES = {"lenet-5": (1024, 10000), "cifar": (512,)}


def cases(device, compiled=True):
    """compiled: whether torch.compile takes part in float32, which takes it up to a minute a row to prepare."""
    networks = [batched(network, N, device) for network in NETWORKS for N in BATCHES[network.name]]
    return [
        _case(device, network, precision, compiled and not device.dry)
        for network in networks
        for precision in ("float32", "bfloat16")
    ]


def batched(network: Network, N: int, device) -> Network:
    """The network with that batch, and it in its name; in a dry run the batch is 2 all the same."""
    name, N = f"{network.name}@{N}", 2 if device.dry else N
    return network._replace(name=name, batch=N, convolutions=tuple(c._replace(N=N) for c in network.convolutions))


def _case(device, network, precision, compiled):
    half = precision == "bfloat16"  # by autocast: weights, and what the optimizer does, stay float32

    def draw():
        images = torch.randn(network.convolutions[0].x, device=device.type)
        return {"images": images, "labels": torch.randint(10, (network.batch,), device=device.type)}

    def way(layout, precision_, change=lambda model: model, **more):
        return Way(
            precision_,
            layout,
            lambda t: _step(device, change(model_of(network, layout, torch.float32)), t, half),
            **more,
        )

    ways = {OURS: way("nchw", precision, convert, capture=False), f"{OURS} graph": way("nchw", precision, convert)}
    for layout in LAYOUTS:
        ways[f"torch {layout}"] = way(layout, precision, capture=False)
        ways[f"torch {layout} graph"] = way(layout, precision, profile=False)
    if not half:
        ways["torch nchw tf32"] = way("nchw", "tf32", capture=False, profile=False)
        ways["torch nchw tf32 graph"] = way("nchw", "tf32", profile=False)
    if compiled and not half:
        ways["torch.compile nchw"] = way("nchw", precision, torch.compile, capture=False)
    images = (
        4 * torch.Size(network.convolutions[0].x).numel()
    )  # bytes: the least a step reads; the rest need not leave the GPU's caches
    return Case(
        "step",
        network.name,
        "step",
        precision,
        network.flops,
        images,
        draw,
        ways,
        reference=lambda t: _step(device, model_of(network, "nchw", torch.float64), t, False)(),
        grad=True,
        slack=2e-2 if half else 1e-5,
    )


def _step(device, model: nn.Module, t, half):
    """A step that leaves the weights as they are, so that every call of everybody's makes the same gradients."""
    images, labels = t["images"], t["labels"]
    model = model.to(device.type)
    parameters = list(model.parameters())
    optimizer = torch.optim.SGD(parameters, lr=0.0)

    def step():
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        return [p.grad for p in parameters]

    return device.ours(step)
