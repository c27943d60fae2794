"""What only a GPU shows: streams, graphs, devices, and tensors beyond 32-bit indices."""

import pytest
import torch
import torch.nn.functional as F

import convlab.functional as CF

pytestmark = pytest.mark.cuda


def step(x, w):
    y = CF.max_pool2d(CF.leaky_relu(CF.conv2d(x, w, padding=1), 0.1), 2)
    return [y, *torch.autograd.grad(y.square().sum(), (x, w))]


def inputs():
    return torch.randn(64, 3, 32, 32, device="cuda", requires_grad=True), torch.randn(
        8, 3, 3, 3, device="cuda", requires_grad=True
    )


@pytest.mark.works_with("CUDA streams and graphs")
def test_work_goes_to_the_current_stream():
    """A kernel on another stream would read x before the copy that the sleeping stream has still to make."""
    source, w = inputs()
    expected = step(source, w)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        x = torch.zeros_like(source)
        torch.cuda._sleep(50_000_000)
        x.copy_(source.detach())
        got = step(x.requires_grad_(), w)
    torch.cuda.current_stream().wait_stream(side)
    assert all(torch.equal(a, b) for a, b in zip(got, expected))


def test_two_streams_at_once():
    problems = [inputs() for _ in range(2)]
    expected = [step(*p) for p in problems]
    streams = [torch.cuda.Stream() for _ in problems]
    torch.cuda.synchronize()
    got = []
    for _ in range(5):
        got = []
        for stream, problem in zip(streams, problems):
            with torch.cuda.stream(stream):
                got.append(step(*problem))
    torch.cuda.synchronize()
    for a, b in zip(got, expected):
        assert all(torch.equal(s, t) for s, t in zip(a, b))


@pytest.mark.works_with("CUDA streams and graphs")
def test_graph_capture():
    x, w = inputs()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step(x, w)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step(x, w)
    with torch.no_grad():
        x.copy_(torch.randn_like(x))
    graph.replay()
    torch.cuda.synchronize()
    assert all(torch.equal(a, b) for a, b in zip(captured, step(x, w)))


@pytest.mark.works_with("several GPUs in one process", gpus=2)
def test_a_second_device():
    if torch.cuda.device_count() < 2:
        pytest.skip("one GPU")
    x, w = (t.detach().to("cuda:1").requires_grad_() for t in inputs())
    got = step(x, w)
    assert all(t.device == x.device for t in got) and torch.cuda.current_device() == 0
    torch.testing.assert_close(CF.conv2d(x, w), F.conv2d(x, w), rtol=1e-3, atol=1e-3)


def test_no_synchronisation():
    x, w = inputs()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step(x, w)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_more_than_two_to_the_31_elements():
    if torch.cuda.mem_get_info()[0] < 40 << 30:
        pytest.skip("needs 40 GB of free GPU memory")
    n = (2**31 // (64 * 64)) + 3
    x = torch.zeros(n, 1, 64, 64, device="cuda", dtype=torch.float16)
    x[-1] = torch.randn(64, 64)
    w = torch.randn(1, 1, 3, 3, device="cuda", dtype=torch.float16)
    y = CF.conv2d(x, w, padding=1)
    torch.testing.assert_close(y[-1:].double(), F.conv2d(x[-1:].double(), w.double(), padding=1), rtol=2e-3, atol=2e-3)
    assert y[:-1].count_nonzero() == 0
    del y
    pooled, indices = CF.max_pool2d(x[-4:], 2, return_indices=True)
    expected, expected_indices = F.max_pool2d(x[-4:], 2, return_indices=True)
    assert torch.equal(pooled, expected) and torch.equal(indices, expected_indices)
    assert torch.equal(CF.leaky_relu(x)[-1], F.leaky_relu(x[-1]))
