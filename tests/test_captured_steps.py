"""Training steps as CUDA graphs, with layers and with blocks; and what the training scripts' --graph captures."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import convlab
from convlab.training.run import Captured


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 6, 5),
        nn.LeakyReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.LazyLinear(10),
    )


def gradients(model, x, labels):
    model.zero_grad()
    loss = F.cross_entropy(model(x), labels)
    loss.backward()
    return [loss.detach().clone(), *(p.grad.clone() for p in model.parameters())]


@pytest.fixture(params=[convlab.convert, convlab.fuse])
def step(request):
    """A model, the loss and gradients that it should compute, its input and its labels."""
    expected, model = network().cuda(), network().cuda()
    x, labels = torch.randn(16, 1, 28, 28, device="cuda"), torch.randint(10, (16,), device="cuda")
    expected(x)
    model(x)
    model.load_state_dict(expected.state_dict())
    return request.param(model), gradients(expected, x, labels), x, labels


def assert_close(got, expected):
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.cuda
def test_graphed_callables(step):
    model, expected, x, labels = step
    model = torch.cuda.make_graphed_callables(model, (torch.randn_like(x),))
    assert_close(gradients(model, x, labels), expected)


@pytest.mark.cuda
@pytest.mark.long
def test_reduce_overhead(step):
    model, expected, x, labels = step
    compiled = torch.compile(model, mode="reduce-overhead")
    for _ in range(3):
        torch.compiler.cudagraph_mark_step_begin()
        got = gradients(compiled, x, labels)
    assert_close(got, expected)
    torch._dynamo.reset()


@pytest.mark.cuda
def test_a_whole_step(step):
    model, expected, x, labels = step
    images = torch.zeros_like(x)

    def whole():
        model.zero_grad(set_to_none=False)
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        return loss

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            whole()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = whole()
    images.copy_(x)
    graph.replay()
    assert_close([loss.detach(), *(p.grad for p in model.parameters())], expected)


@pytest.mark.cuda
def test_what_the_scripts_capture(step):
    model, expected, x, labels = step
    captured = Captured(model)
    for _ in range(2):
        assert_close(gradients(captured, x, labels), expected)
    torch.testing.assert_close(captured(x[:3]), model(x[:3]))


def test_the_first_shape_is_captured_and_averages_stay(monkeypatch):
    """Without a GPU: when a capture is asked for, and of which shape."""
    asked, replayed = [], []

    def make(module, samples):
        asked.append(samples[0].shape)
        module(*samples)  # warming up
        forward = module.forward
        module.forward = lambda x: replayed.append(x.shape) or forward(x)

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", make)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    captured, first, last = Captured(model), torch.randn(4, 1, 6, 6), torch.randn(3, 1, 6, 6)
    with torch.no_grad():
        captured(first)
    assert not asked and model[1].num_batches_tracked == 1
    for x in (first, last, first):
        captured(x)
    assert asked == [first.shape] and replayed == [first.shape] * 2 and model[1].num_batches_tracked == 4
