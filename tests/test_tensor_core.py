"""The tensor_core rung, in every precision, pass and layout."""

import random
from contextlib import nullcontext

import pytest
import tensor_core_gate
import tensor_core_times
import torch
from tensor_core import NUMBER, PASSES, PRECISIONS, RUNG, TF32, check_conv, laid, plan_of, random_conv, run, tiles_of

import convlab
import convlab.functional as CF
from cifar_train import convnet
from convlab._algorithms import names_of
from convlab.layers import find
from convlab.testing import AWKWARD, Conv
from train_lenet import lenet5

SAMPLE, CHECKED, MANY, CHUNKS = 6, 1, 1000, 10  # random problems a precision and pass, every third of several tiles
TILES = [Conv(1, 72, 13, 12, 133, 3, 3, padding=(1, 1)), Conv(2, 136, 9, 9, 66, 1, 1)]  # several, with remainders
HEADS = [Conv(2, 3, 13, 11, 24, 3, 3, stride=(2, 2), padding=(1, 1)), Conv(3, 24, 1, 1, 10, 1, 1)]
GROUPS = [Conv(2, 16, 7, 6, 24, 3, 3, padding=(1, 1), groups=2), Conv(1, 27, 6, 5, 30, 2, 3, stride=(2, 1), groups=3)]
JOINED = [  # whose residue classes are columns of one product, in dgrad
    Conv(2, 3, 14, 12, 24, 3, 3, stride=(2, 2), padding=(1, 1)),
    Conv(1, 3, 18, 16, 16, 7, 7, stride=(2, 2), padding=(3, 3)),
    Conv(3, 16, 6, 8, 24, 4, 4, stride=(2, 2), padding=(1, 1), groups=2),
    Conv(2, 5, 9, 7, 19, 3, 2, stride=(3, 1), padding=(0, 1)),
    Conv(1, 2, 6, 8, 9, 2, 5, stride=(2, 4)),
    Conv(2, 3, 8, 6, 8, 3, 3, stride=(2, 2)),
]

each_precision = pytest.mark.parametrize("precision", PRECISIONS)
each_layout = pytest.mark.parametrize("channels_last", [False, True], ids=["nchw", "channels_last"])


@pytest.fixture
def tf32_switch():
    """torch's switches, as they were afterwards."""
    yield torch.backends.cudnn
    torch.backends.cudnn.conv.fp32_precision = torch.backends.cudnn.fp32_precision = "none"
    torch.backends.fp32_precision = "none"
    torch.backends.cudnn.allow_tf32 = False


@each_precision
def test_awkward_shapes(precision):
    rng = random.Random(precision)
    for conv in [c for c in AWKWARD if c.groups == 1 and c.N] + HEADS + GROUPS + JOINED:
        mode = dict(order=rng.choice(["forward", "reverse", "random"]), check=conv.N * conv.H * conv.W < 1000)
        check_conv(conv, precision, rng.random() < 0.5, **mode)


@each_layout
@each_precision
@pytest.mark.parametrize("conv", TILES, ids=str)
def test_several_tiles(conv, precision, channels_last):
    # "forward": copies land when they are waited for, and not before
    check_conv(conv, precision, channels_last, order="forward", check=False)


@each_precision
def test_layouts_may_differ(precision):
    for channels_last in (False, True):
        check_conv(GROUPS[0], precision, channels_last, mixed=True, check=True)


def run_random(precision, pass_, seed, count, check):
    rng = random.Random(seed)
    for i in range(count):
        several = (precision, pass_) if i % 3 == 0 else None
        conv, mode = (
            random_conv(rng, several=several),
            dict(order=("forward", "reverse", "random")[i % 3], seed=i, check=check),
        )
        rung = rng.choice([*tiles_of(RUNG, precision, pass_).values()])
        check_conv(conv, precision, rng.random() < 0.5, [pass_], rng.random() < 0.1, rung=rung, **mode)


@each_precision
@pytest.mark.parametrize("pass_", PASSES)
def test_random_problems(precision, pass_):
    run_random(precision, pass_, f"{precision} {pass_}", SAMPLE, False)
    run_random(precision, pass_, f"{precision} {pass_} checked", CHECKED, True)


@pytest.mark.long
@each_precision
@pytest.mark.parametrize("pass_", PASSES)
@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_many_random_problems(precision, pass_, chunk):
    run_random(precision, pass_, f"{precision} {pass_} many {chunk}", MANY // CHUNKS, False)
    run_random(precision, pass_, f"{precision} {pass_} many checked {chunk}", MANY // 10 // CHUNKS, True)


# ---- what float32 is made of ----------------------------------------------------------------------------------------


def errors(conv, number, passes=PASSES):
    """Root mean square, of each pass, against float64."""
    x, w, b = conv.tensors(torch.float32)
    dy = torch.randn(conv.N, conv.K, *conv.outputs)
    exact = [t.double().requires_grad_() for t in (x, w)]
    y = torch.nn.functional.conv2d(*exact, b.double(), conv.stride, conv.padding, conv.dilation, conv.groups)
    expected = dict(zip(PASSES, [y.detach(), *torch.autograd.grad(y, exact, dy.double())]))
    rms = {}
    for pass_ in passes:
        with convlab.simulate(check=False):
            geometry = (*conv.stride, *conv.padding * 2, *conv.dilation, conv.groups)
            if pass_ == "forward":
                out = convlab.ops.conv2d_forward(x, w, b, geometry, number)
            elif pass_ == "dgrad":
                out = convlab.ops.conv2d_dgrad(dy, w, x.shape[2:], geometry, False, number)
            else:
                out = convlab.ops.conv2d_wgrad(dy, x, w.shape[2:], geometry, False, False, number)[0]
        rms[pass_] = (out.double() - expected[pass_]).pow(2).mean().sqrt().item()
    return rms


def test_three_products_are_as_exact_as_float32():
    conv = Conv(1, 64, 14, 14, 48, 3, 3, padding=(1, 1))
    register_tiled = next(a.number for a in convlab.algorithms() if a.name == "register_tiled")
    ours, float32, tf32 = errors(conv, NUMBER), errors(conv, register_tiled), errors(conv, NUMBER + TF32)
    for pass_ in PASSES:
        assert ours[pass_] <= 2 * float32[pass_], pass_
        assert tf32[pass_] > 50 * float32[pass_], pass_


def check_infinities(algo, dtype=torch.float32, check=False):
    """In 16 bits the zeros around x are multiplied: w, and in wgrad dy, may not be infinite there."""
    strict = dtype == torch.float32
    for channels_last in (False, True):
        for conv in (Conv(1, 8, 6, 5, 9, 3, 3, padding=(1, 1)), Conv(2, 8, 4, 4, 10, 1, 1)):
            x, w = torch.randint(-2, 3, conv.x).float(), torch.randint(-2, 3, conv.w).float()
            x[0, 1, 0, 0], x[0, 2, 3, 2], x[0, 3, 1, 3] = torch.inf, -torch.inf, torch.nan
            x[0, 4, 2, 1] = torch.finfo(dtype).max / 4
            w[0, 0, 0, 0], w[1], w[2] = torch.inf if strict else 1, w[1].sign(), w[2].sign() * 2
            dy = torch.where(torch.rand(conv.y) < 0.02, torch.inf, 1.0)
            x, w, dy = (laid(t.to(dtype), channels_last) for t in (x, w, dy))
            results = []
            for name in (algo, "reference"):
                given = x.clone().requires_grad_(), w.clone().requires_grad_()
                with convlab.simulate(check=check) if name == algo else nullcontext():
                    y = CF.conv2d(*given, None, *conv.arguments, algo=name)
                    results.append([y, *torch.autograd.grad(y, given[: 1 + strict], dy)])
            for got, wanted in zip(*results):
                torch.testing.assert_close(got, wanted, equal_nan=True)


def test_three_products_of_infinities_and_of_what_rounds_to_one():
    """Whose second half is NaN: such elements are made once more, in float32."""
    check_infinities("tensor_core")


def test_infinities_that_no_tap_meets():
    """Are not read: zeros of the filter, with which tiles are filled up, would make them NaN."""
    check_infinities("tensor_core", torch.bfloat16)


def kernels(sim):
    return [launch.kernel for launch in sim.launches]


def products(sim):
    return {name for name in ("Tf32Products", "Tf32x3Products") if any(name in k for k in kernels(sim))}


def test_torchs_switches_decide(tf32_switch):
    x, w = torch.randn(1, 8, 5, 5), torch.randn(8, 8, 3, 3)
    problem = convlab.Conv2dProblem(x.shape, w.shape, (1, 8, 3, 3), (1, 1), (0,) * 4, (1, 1), 1, x.dtype, False, "cuda")

    def made_of():
        with convlab.simulate(check=False) as sim:
            CF.conv2d(x, w, algo="tensor_core")
        (kind,) = products(sim)
        assert RUNG.plan(problem, "forward")["precision"] == {"Tf32Products": "tf32"}.get(kind, "3xtf32")
        return kind

    assert made_of() == "Tf32x3Products"
    tf32_switch.allow_tf32 = True
    assert made_of() == "Tf32Products"
    tf32_switch.conv.fp32_precision = "ieee"
    assert made_of() == "Tf32x3Products"
    tf32_switch.conv.fp32_precision = "none"
    assert made_of() == "Tf32x3Products"
    tf32_switch.fp32_precision = "tf32"
    assert made_of() == "Tf32Products"


def test_a_backward_has_the_switch_of_its_forward(tf32_switch):
    x, w = torch.randn(1, 8, 5, 5, requires_grad=True), torch.randn(8, 8, 3, 3, requires_grad=True)
    tf32_switch.allow_tf32 = True
    with convlab.simulate(check=False) as sim:
        y = CF.conv2d(x, w, algo="tensor_core")
        tf32_switch.allow_tf32 = False
        y.sum().backward()
    assert products(sim) == {"Tf32Products"}
    assert sum("Tf32Products" in k and "Map" in k for k in kernels(sim)) == 3


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_channels_last_is_read_as_it_lies(dtype):
    conv = Conv(2, 16, 7, 9, 24, 3, 3, padding=(1, 1))
    x, w, b = (t.to(dtype) for t in conv.tensors())
    x, w = laid(x, True), laid(w, True)
    dy = laid(torch.randn(conv.N, conv.K, *conv.outputs).to(dtype), True)
    name = str(dtype).removeprefix("torch.").replace("float32", "3xtf32")
    for pass_ in PASSES:
        with convlab.simulate() as sim, torch.profiler.profile() as profile:
            out = run(conv, name, pass_, x, w, b, dy, True)[0]
        assert out.is_contiguous(memory_format=torch.channels_last)
        assert not any("chunks_kernel" in k or "change_layout" in k or "transpose_kernel" in k for k in kernels(sim))
        assert not {e.key for e in profile.key_averages()} & {"aten::copy_", "aten::contiguous", "aten::clone"}


@each_layout
@each_precision
def test_the_main_loop_is_free_of_bank_conflicts(precision, channels_last):
    conv = Conv(1, 64, 8, 16, 64, 3, 3, padding=(1, 1))
    x, w, b = (t.to(PRECISIONS[precision][0]) for t in conv.tensors())
    dy = torch.randn(conv.N, conv.K, *conv.outputs).to(x.dtype)
    x, w, dy = (laid(t, channels_last) for t in (x, w, dy))
    for pass_ in PASSES:
        with convlab.simulate(count=True) as sim:
            run(conv, precision, pass_, x, w, b, dy, channels_last)
        rows = [r for r in sim.traffic if r.space == "shared" and r.memory != "lines" and "Map" in r.kernel]
        assert sum(r.requests for r in rows) > 1000
        for row in rows:
            assert row.wavefronts == row.ideal, f"{pass_}: {row}"


def test_a_tile_is_copied_once():
    conv = Conv(1, 64, 8, 16, 64, 3, 3, padding=(1, 1))
    x, w, b = (laid(t.half(), True) if t.dim() == 4 else t.half() for t in conv.tensors())
    with convlab.simulate(count=True) as sim:
        run(conv, "float16", "forward", x, w, b, None, True)
    M, N, K = plan_of(conv, "float16", "forward")["tile"][:3]
    blocks = -(-8 * 16 // M) * -(-64 // N)
    copies, sums, positions = 9 * 64 // K * (M + N) * K * 2, M * N * 4, (M + N) * 16
    written = sum(r.bytes for r in sim.traffic if r.access == "write" and "dynamic" in r.memory and "Map" in r.kernel)
    assert written == blocks * (positions + copies + sums)


def test_images_that_lie_too_far_apart_are_refused():
    """Rows of a tile may be of 128 images, and what lies between them is counted in 32 bits."""
    for C, can in ((2**21 - 8, True), (2**21, False)):
        x, y = (128, C, 8, 8), (128, 8, 1, 1)
        problem = convlab.Conv2dProblem(x, (8, C, 8, 8), y, (1, 1), (0,) * 4, (1, 1), 1, torch.float16, True, "cuda")
        assert RUNG.supports(problem, "forward")[0] == can


def test_predicted_times_of_a_layer():
    """Of mma.sync's rate, on an H200, by the model of convlab/explain: two fifths, as 4 warps of two blocks reach there,
    which hardly hide their first tiles and their last sums."""
    layer = tensor_core_times.find("resnet-128@64")
    share = tensor_core_times.predicted(
        layer, "forward", "bfloat16", "channels_last", tensor_core_times.GPUS["H200"]
    ).share
    assert 0.35 <= share <= 0.5


def test_a_view_that_begins_anywhere():
    x = torch.randn(2 * 8 * 5 * 5 + 1)[1:].view(2, 8, 5, 5)
    w = torch.randn(8 * 8 * 9 + 3)[3:].view(8, 8, 3, 3)
    with convlab.simulate():
        y = CF.conv2d(x, w, algo="tensor_core")
    assert torch.allclose(y, torch.nn.functional.conv2d(x, w), atol=1e-4)


def test_second_derivatives():
    x, w = (torch.randn(s, requires_grad=True) for s in ((1, 8, 5, 4), (8, 8, 3, 2)))
    with convlab.simulate(check=False):
        ours, theirs = [], []
        for conv, into in (
            (lambda x, w: CF.conv2d(x, w, stride=2, padding=1, algo="tensor_core"), ours),
            (lambda x, w: torch.nn.functional.conv2d(x, w, stride=2, padding=1), theirs),
        ):
            y = conv(x, w)
            dx, dw = torch.autograd.grad(y.pow(2).sum(), (x, w), create_graph=True)
            into += torch.autograd.grad(dx.pow(2).sum() + dw.pow(2).sum(), (x, w))
    for a, b in zip(ours, theirs):
        assert (a - b).abs().max() <= 1e-5 * b.abs().max()


# ---- steps of networks ----------------------------------------------------------------------------------------------


def gradients(model, images, labels):
    loss = torch.nn.functional.cross_entropy(model(images), labels)
    return torch.autograd.grad(loss, list(model.parameters()))


@pytest.mark.parametrize("make, size", [(lenet5, (3, 1, 32, 32)), (convnet, (1, 3, 32, 32))], ids=["lenet", "cifar"])
def test_a_step_of_a_network(make, size):
    """Gradients of a loss, in strict float32, against torch in float64."""
    ours, theirs = make(convlab), make(torch.nn).double()
    theirs.load_state_dict(ours.state_dict())
    images, labels = torch.rand(size), torch.randint(10, size[:1])
    for module in ours.modules():
        if isinstance(module, convlab.Conv2d):
            module.algo = "tensor_core"
    with convlab.simulate(check=False) as sim:
        found = gradients(ours, images, labels)
    assert products(sim) == {"Tf32x3Products"}
    assert sum("tensor_core_kernel" in k for k in kernels(sim)) == 8  # three layers' passes, without the images'
    for parameter, exact in zip(found, gradients(theirs, images.double(), labels)):
        torch.testing.assert_close(parameter.double(), exact, rtol=1e-5, atol=2e-6 * float(exact.abs().max()))


# ---- what it refuses, and what nobody gets unasked ------------------------------------------------------------------


def test_small_groups_are_refused_with_a_sentence():
    problem = Conv(2, 6, 7, 7, 9, 3, 3, groups=3).problem(torch.float32)
    assert RUNG.supports(problem, "forward") == (
        False,
        "multiplies 8 channels of a group at a time or more, and these groups have 2 in and 3 out",
    )
    assert (
        RUNG.supports(Conv(2, 8, 7, 7, 9, 3, 3).problem(torch.float64), "forward")[1] == "is not compiled for float64"
    )


def test_auto_takes_it_where_it_is_faster(tf32_switch):
    def chosen(layer, dtype=torch.float32):
        return set(names_of("auto", find(layer).problem(dtype, backend="cuda")).values())

    for allowed in (True, False):
        tf32_switch.allow_tf32 = allowed
        assert chosen("resnet-512@64") == {"warpgroup"}
        assert chosen("lenet-c3@1024") == {"small_filter"}
    assert "register_tiled" not in chosen("resnet-128@64", torch.bfloat16)
    assert chosen("resnet-128@64", torch.float64) == {"direct"}


def test_the_gate_is_what_a_gpu_made_right():
    gate = {
        ("bfloat16", "wgrad"): True,
        ("3xtf32", "forward"): True,
        ("3xtf32", "dgrad"): True,
        ("tf32", "dgrad"): False,
    }
    numbers = tensor_core_gate.rows(gate, PASSES)
    assert numbers == [0, 0, 0b100, 0, 0b011]
    header = tensor_core_gate.HEADER.read_text()
    assert "{0, 0, 4, 0, 3}" in tensor_core_gate.with_numbers(header, numbers)
