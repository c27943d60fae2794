"""torch.compile sees one graph, with static and dynamic shapes, forward and backward."""

import pytest
import torch
import torch._dynamo.testing
from torch import nn
from torch._dynamo.backends.common import aot_autograd

import convlab
import convlab.functional as CF


def targets(model, *shape):
    """The operators of the graph that a compiler is given."""
    found = []

    def backend(graph, inputs):
        found.extend(str(node.target) for node in graph.graph.nodes if node.op == "call_function")
        return graph

    torch.compile(model, fullgraph=True, backend=aot_autograd(fw_compiler=backend))(torch.randn(shape))
    torch._dynamo.reset()
    return found


def test_activations_and_average_pooling_are_the_compilers():
    """It makes one loop of them and what is around; a block stays one call of ours."""
    model = nn.Sequential(convlab.Conv2d(3, 4, 3), convlab.ReLU(), convlab.LeakyReLU(), convlab.AvgPool2d(2))
    model.extend([convlab.ReLU6(), convlab.PReLU(), convlab.AdaptiveAvgPool2d(2), nn.Flatten(2), convlab.AvgPool1d(2)])
    with torch.no_grad():
        found = targets(model, 1, 3, 8, 8)
    assert [name for name in found if name.startswith("convlab")] == ["convlab.conv2d_forward.default"]
    assert any("relu" in name for name in found) and "aten.avg_pool2d.default" in found


def network(layers):
    torch.manual_seed(0)
    return nn.Sequential(
        layers.Conv2d(3, 6, 3, padding="same"),
        layers.LeakyReLU(0.1),
        layers.MaxPool2d(2),
        layers.Conv2d(6, 4, 3, stride=2),
        layers.ReLU(inplace=True),
    )


def step(f, model, x):
    model.zero_grad()
    y = f(x)
    y.square().sum().backward()
    return [y.detach(), *(p.grad for p in model.parameters())]


@pytest.mark.works_with("`torch.compile(fullgraph=True)`: inductor and aot_eager, static and dynamic shapes")
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_fullgraph(backend, device):
    model, expected = network(convlab).to(device), network(nn).to(device)
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    for shape in [(2, 3, 16, 15), (3, 3, 11, 12)]:
        x = torch.randn(shape, device=device)
        for a, b in zip(step(compiled, model, x), step(expected, expected, x)):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    torch._dynamo.reset()


@pytest.mark.works_with("`torch.compile(fullgraph=True)`: inductor and aot_eager, static and dynamic shapes")
def test_dynamic_shapes_compile_once(device):
    model, expected = network(convlab).to(device), network(nn).to(device)
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(model, fullgraph=True, backend=counter, dynamic=True)
    frames = []
    for shape in [(2, 3, 16, 15), (5, 3, 21, 12), (7, 3, 33, 30)]:
        x = torch.randn(shape, device=device)
        for a, b in zip(step(compiled, model, x), step(expected, expected, x)):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-3)
        frames.append(counter.frame_count)
    assert frames[0] == frames[-1], "another shape compiled again"
    torch._dynamo.reset()


@pytest.mark.parametrize("algo", ["direct", {"wgrad": "direct"}])
def test_algo_and_layout(algo, device):
    f = torch.compile(lambda x, w: CF.conv2d(x, w, padding=1, algo=algo), fullgraph=True, backend="aot_eager")
    x = torch.randn(2, 3, 8, 8, device=device).contiguous(memory_format=torch.channels_last)
    w = torch.randn(4, 3, 3, 3, device=device, requires_grad=True)
    y = f(x, w)
    assert y.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(y, nn.functional.conv2d(x, w, padding=1), rtol=1e-4, atol=1e-4)
    torch._dynamo.reset()
