"""What "auto" may do to float32 on the CPU: torch's own switch for convolutions decides."""

import pytest
import torch

import convlab
import convlab.functional as CF
from convlab import ops
from convlab._algorithms import WITH_BF16, Conv2dProblem, names_of

CHOICE = {"none": "winograd_2x2", "ieee": "register_tiled", "tf32": "winograd_4x4"}
CHOICE["bf16"] = "amx" if convlab.build_info()["amx"] else "winograd_4x4"
GEOMETRY = (1, 1, 1, 1, 1, 1, 1, 1, 1)
NUMBERS = {a.name: a.number for a in convlab.algorithms()}
NUMBERS["amx"] += WITH_BF16


@pytest.fixture(autouse=True)
def as_it_was():
    yield
    for switch in (torch.backends.mkldnn.conv, torch.backends.mkldnn, torch.backends):
        switch.fp32_precision = "none"


def tensors(N=2, dtype=torch.float32):
    g = torch.Generator().manual_seed(5)
    shapes = (N, 80, 9, 10), (64, 80, 3, 3), (N, 64, 9, 10)
    return [torch.randn(shape, generator=g).to(dtype) for shape in shapes]


def of(algo, x, w, dy):
    """y and both gradients by one algorithm"""
    number = NUMBERS[algo]
    return [
        ops.conv2d_forward(x, w, None, GEOMETRY, number),
        ops.conv2d_dgrad(dy, w, x.shape[2:], GEOMETRY, False, number),
        ops.conv2d_wgrad(dy, x, (3, 3), GEOMETRY, False, False, number)[0],
    ]


def by_auto(x, w, dy, conv=lambda x, w: CF.conv2d(x, w, padding=1), between=lambda: None):
    x, w = x.clone().requires_grad_(), w.clone().requires_grad_()
    y = conv(x, w)
    between()
    return [y.detach(), *torch.autograd.grad(y, (x, w), dy)]


def same(ours, theirs):
    return all(torch.equal(a, b) for a, b in zip(ours, theirs))


@pytest.mark.parametrize("precision", CHOICE)
def test_the_switch_decides(precision):
    torch.backends.mkldnn.conv.fp32_precision = precision
    x, w, dy = tensors()
    problem = Conv2dProblem.of(x, w, 1, 1)
    assert set(names_of("auto", problem).values()) == {CHOICE[precision]}
    assert same(by_auto(x, w, dy), of(CHOICE[precision], x, w, dy))


def test_it_inherits_as_torchs_does():
    x, w, dy = tensors()
    torch.backends.fp32_precision = "ieee"
    assert same(by_auto(x, w, dy), of("register_tiled", x, w, dy))
    torch.backends.mkldnn.fp32_precision = "tf32"
    assert same(by_auto(x, w, dy), of("winograd_4x4", x, w, dy))
    torch.backends.mkldnn.conv.fp32_precision = "ieee"
    assert same(by_auto(x, w, dy), of("register_tiled", x, w, dy))


def test_the_backward_has_the_state_of_its_forward():
    x, w, dy = tensors()

    def between():
        torch.backends.mkldnn.conv.fp32_precision = "none"

    torch.backends.mkldnn.conv.fp32_precision = "tf32"
    assert same(by_auto(x, w, dy, between=between), of("winograd_4x4", x, w, dy))


def test_matrix_products_have_a_switch_of_their_own():
    x, w, dy = tensors()
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        assert same(by_auto(x, w, dy), of("winograd_2x2", x, w, dy))
    finally:
        torch.set_float32_matmul_precision(before)


def test_a_name_is_not_asked():
    torch.backends.mkldnn.conv.fp32_precision = "ieee"
    x, w, dy = tensors()
    conv = lambda x, w: CF.conv2d(x, w, padding=1, algo={"forward": "winograd_4x4"})  # noqa: E731
    named, exact = of("winograd_4x4", x, w, dy), of("register_tiled", x, w, dy)
    assert same(by_auto(x, w, dy, conv), [named[0], *exact[1:]])


def test_other_types_are_not_concerned():
    torch.backends.mkldnn.conv.fp32_precision = "tf32"
    for dtype in (torch.float64, torch.bfloat16):
        problem = Conv2dProblem.of(*tensors(dtype=dtype)[:2], 1, 1)
        assert not any(name.startswith("winograd") for name in names_of("auto", problem).values())


@pytest.mark.parametrize("precision", ["none", "tf32", "bf16"])
def test_the_choice_does_not_depend_on_the_batch(precision):
    torch.backends.mkldnn.conv.fp32_precision = precision
    for channels, size in [(16, 4), (16, 8), (32, 5), (64, 7), (512, 7), (8, 20)]:
        chosen = {
            tuple(
                names_of(
                    "auto",
                    Conv2dProblem.of(torch.empty(N, channels, size, size), torch.empty(channels, channels, 3, 3), 1, 1),
                ).values()
            )
            for N in (1, 2, 7, 64)
        }
        assert len(chosen) == 1


def test_a_compiled_graph_keeps_the_state_it_was_compiled_with():
    x, w, dy = tensors()
    torch._dynamo.reset()
    conv = torch.compile(lambda x, w: CF.conv2d(x, w, padding=1), fullgraph=True, backend="aot_eager")
    torch.backends.mkldnn.conv.fp32_precision = "tf32"
    assert same(by_auto(x, w, dy, conv), of("winograd_4x4", x, w, dy))
    torch.backends.mkldnn.conv.fp32_precision = "none"
    assert same(by_auto(x, w, dy, conv), of("winograd_4x4", x, w, dy))
    torch._dynamo.reset()
    assert same(by_auto(x, w, dy, conv), of("winograd_2x2", x, w, dy))
