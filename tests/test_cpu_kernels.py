"""The CPU kernels: every instruction set, problems of several tiles and strips, mixed layouts, any number of threads,
accuracy."""

import dataclasses
import itertools
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import convlab
import convlab.functional as CF
from convlab import cpu
from convlab.testing import Conv, check_conv

ROOT = Path(__file__).parent.parent
PARITY = [
    "test_conv2d.py",
    "test_max_pool2d.py",
    "test_avg_pool2d.py",
    "test_leaky_relu.py",
    "test_gradients.py",
    "test_cpu_kernels.py",
]
# What every instruction set has in common: GPUs, compilers, the algorithm without vectors, what the objects hold
IN_COMMON = "cuda or compile or reference or rung or functions_of_one_name or kernels_of_one_instruction_set"
ALGORITHMS = [a.name for a in convlab.algorithms() if "cpu" in a.backends]


def runnable():
    """The instruction sets that this machine has, as the message about a wrong one lists them."""
    environment = {**os.environ, "CONVLAB_CPU": "none"}
    done = subprocess.run(
        [sys.executable, "-c", "import convlab; convlab.build_info()"],
        env=environment,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert "RuntimeError: CONVLAB_CPU is 'none'; this machine runs " in done.stderr
    return done.stderr.rsplit("runs ", 1)[1].strip().split(", ")


@pytest.mark.parametrize("name", ["avx512", "avx2", "baseline"])
def test_parity_and_gradients_of_every_instruction_set(name):
    if os.environ.get("CONVLAB_CPU"):
        pytest.skip("this is such a run")
    if name == cpu.kernels():
        pytest.skip(f"{name} is what the whole suite runs here")
    if name not in runnable():
        pytest.skip(f"this machine has no {name}")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        "-p",
        "no:xdist",
        "-k",
        f"not ({IN_COMMON})",
        *(str(ROOT / "tests" / file) for file in PARITY),
    ]
    done = subprocess.run(command, env={**os.environ, "CONVLAB_CPU": name}, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


def channels_last(t):
    return t.contiguous(memory_format=torch.channels_last)


def several_tiles(rng: random.Random) -> Conv:
    """A problem of several register tiles, vectors of channels, strips or images, with remainders."""
    while True:
        narrow = rng.choice([1, 1, 2, 4, 8]) if rng.random() < 0.35 else 0  # groups of as many channels, in and out
        groups = rng.choice([3, 37, 70, 100] if narrow else [1, 1, 1, 1, 2, 5, 37])
        c = Conv(
            rng.choice([1, 2, 5, 33]),
            groups * (narrow or rng.choice([1, 2, 3, 4, 7, 19, 40])),
            rng.randint(1, 40),
            rng.randint(1, 70),
            groups * (narrow or rng.choice([1, 2, 5, 6, 9, 16, 33, 50])),
            rng.randint(1, 5),
            rng.randint(1, 7),
            (rng.randint(1, 3), rng.randint(1, 3)),
            (rng.randint(0, 3), rng.randint(0, 3)),
            (rng.choice([1, 1, 2]), rng.choice([1, 1, 3])),
            groups,
        )
        fits = c.dilation[0] * (c.R - 1) < c.H + 2 * c.padding[0] and c.dilation[1] * (c.S - 1) < c.W + 2 * c.padding[1]
        work = c.N * c.H * c.W * c.C * c.K * c.R * c.S // groups // (c.stride[0] * c.stride[1])
        if fits and work < 3e7:
            return c


@pytest.mark.parametrize("chunk", range(8))
def test_random_problems_of_several_tiles(chunk):
    rng = random.Random(f"several tiles {chunk}")
    for _ in range(12):
        conv, algo = several_tiles(rng), rng.choice(["auto", "register_tiled", "direct", *ALGORITHMS])
        dtype = rng.choice([torch.float32, torch.float32, torch.float64, torch.float16, torch.bfloat16])
        if algo != "auto":
            algorithm = next(a for a in convlab.algorithms() if a.name == algo)
            algo = algo if algorithm.supports(problem(conv, dtype), "forward")[0] else "auto"
        change = [rng.choice([channels_last, torch.clone]) for _ in range(3)]
        x, w, b = conv.tensors(dtype, bias=rng.random() < 0.7)
        dy = torch.randn_like(F.conv2d(x.double(), w.double(), None, *conv.arguments)).to(dtype)

        def run(x, w, b):
            return CF.conv2d(x, w, b, *conv.arguments, algo=algo)

        check_conv(run, change[0](x), change[1](w), b, change[2](dy), conv.arguments, f"{conv} {algo} {dtype}")


WIDE = [
    Conv(9, 140, 9, 11, 150, 3, 3, padding=(1, 1)),
    Conv(8, 130, 10, 9, 84, 2, 1, stride=(2, 2)),
    Conv(3, 300, 13, 14, 150, 1, 1),
    Conv(1, 260, 14, 14, 520, 1, 1, groups=2),
    Conv(9, 180, 7, 7, 150, 1, 1),
    Conv(5, 40, 3, 5, 60, 1, 1, groups=2),
    Conv(3, 9, 7, 7, 2100, 1, 1),
    Conv(2, 5, 16, 16, 70, 1, 1),
    Conv(2, 40, 21, 31, 90, 1, 1),
    Conv(2, 24, 40, 64, 20, 2, 2, stride=(2, 2)),
    Conv(1, 140, 36, 56, 132, 2, 2, stride=(2, 2)),
    Conv(2, 6, 18, 34, 20, 2, 2, stride=(2, 2), groups=2),
    Conv(1, 6, 18, 34, 300, 2, 2, stride=(2, 2)),
    Conv(2, 20, 9, 34, 5, 1, 2, stride=(1, 2)),
    Conv(1, 5, 27, 42, 9, 3, 2, stride=(3, 2)),
    Conv(1, 8, 1040, 32, 7, 520, 1, stride=(520, 1)),
    Conv(2, 9, 21, 35, 130, 1, 1, stride=(2, 2)),
    Conv(2, 6, 20, 32, 8, 2, 1, stride=(2, 1), groups=2),
]


@pytest.mark.parametrize("conv", WIDE, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tiles_of_several_vectors(conv, dtype):
    """More terms than a tile meets at once, and vectors that no wide tile divides. Among them planes of 1 x 1 filters,
    whose pixels are the lanes: blocks with remainders, in parts where there are few, or several together, or of several
    images; and planes that filters as large as their stride take apart or write in pairs, with vectors torn between two rows."""
    x, w, b = conv.tensors(dtype)

    def run(x, w, b):
        return CF.conv2d(x, w, b, *conv.arguments, algo="register_tiled")

    y = run(x, w, b)
    check_conv(run, x, w, b, torch.randn_like(y), conv.arguments, str(conv))
    for image in (x, x.clone().requires_grad_()):  # which keeps what passes
        block = CF.conv2d_block(image, w, b, *conv.arguments, activation="relu", algo="register_tiled")
        assert torch.equal(block, y.relu())
    assert torch.equal(run(x[-1:], w, b), y[-1:])
    assert run(x[:0], w, b).shape == y[:0].shape


PATCHES = [
    Conv(2, 3, 35, 50, 80, 16, 16, stride=(16, 16)),  # rows and columns that no filter reaches
    Conv(3, 9, 14, 21, 70, 2, 3, stride=(2, 3)),
    Conv(1, 26, 13, 8, 64, 1, 8, stride=(1, 8)),
]


@pytest.mark.parametrize("conv", PATCHES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("of_x, of_w", list(itertools.product([channels_last, torch.clone], repeat=2)))
def test_filters_as_large_as_their_stride(conv, dtype, of_x, of_w):
    """wgrad takes patches for pixels where filters lie side by side; of either layout, into either."""
    x, w, b = conv.tensors(dtype)

    def run(x, w, b):
        return CF.conv2d(x, w, b, *conv.arguments, algo={"wgrad": "register_tiled"})

    check_conv(run, of_x(x), of_w(w), b, torch.randn_like(run(x, w, b)), conv.arguments, str(conv))


SLIDING = [
    Conv(3, 4, 40, 40, 16, 7, 7),  # tiles of seventeen pixels; taps by two, two and three
    Conv(2, 16, 32, 32, 14, 3, 4, padding=(1, 2)),  # planes of a page; edges, where each pixel has its address
    Conv(2, 40, 5, 6, 16, 3, 3, padding=(1, 1)),  # so few neighbours as just slide
    Conv(2, 70, 12, 61, 11, 2, 5, stride=(2, 1), padding=(0, 3)),  # more terms than are met at once
    Conv(5, 6, 1, 83, 16, 1, 9, padding=(0, 4)),
    Conv(3, 39, 9, 27, 39, 3, 2, padding=(2, 1), dilation=(2, 1), groups=3),
]


@pytest.mark.parametrize("conv", SLIDING, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_pixels_that_share_what_they_read(conv, dtype):
    """One vector of channels: forward and, where there are as few, dgrad, whose taps go the other way."""
    x, w, b = conv.tensors(dtype)

    def run(x, w, b):
        return CF.conv2d(x, w, b, *conv.arguments, algo="register_tiled")

    for layout in (torch.clone, channels_last):
        y = run(layout(x), w, b)
        check_conv(run, layout(x), layout(w), b, layout(torch.randn_like(y)), conv.arguments, str(conv))
        assert torch.equal(run(layout(x[-1:]), w, b), y[-1:])


@pytest.mark.parametrize(
    "conv",
    [
        Conv(8, 36, 56, 56, 40, 1, 1),
        Conv(7, 20, 57, 83, 40, 2, 1, stride=(2, 1)),
        Conv(44, 32, 32, 32, 12, 3, 3, padding=(1, 1)),  # sums longer than a chunk of terms
    ],
    ids=str,
)
def test_large_targets_of_few_weights(conv):
    """Which are written line after line, all channels of a tile at once."""
    x, w, b = conv.tensors(torch.float32)
    y = CF.conv2d(channels_last(x), w, b, *conv.arguments, algo="register_tiled")
    assert 4 * y.numel() >= 2 << 20
    check_conv(
        lambda *t: CF.conv2d(*t, *conv.arguments, algo="register_tiled"),
        channels_last(x),
        w,
        b,
        channels_last(torch.randn_like(y)),
        conv.arguments,
    )
    alone = CF.conv2d(channels_last(x[:1]), w, b, *conv.arguments, algo="register_tiled")
    assert torch.equal(alone, y[:1])


def test_depthwise_wgrad_of_very_large_filters():
    """So many taps that their number squared, shared out, passes 32 bits"""
    x = torch.randn(1, 2, 376, 376)
    w = torch.randn(2, 1, 374, 374, requires_grad=True)
    grad = torch.randn(1, 2, 2, 2)
    (ours,) = torch.autograd.grad(CF.conv2d(x, w, stride=2, groups=2), w, grad)
    (theirs,) = torch.autograd.grad(torch.nn.functional.conv2d(x, w, stride=2, groups=2), w, grad)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "conv",
    [
        Conv(2, 64, 9, 56, 64, 3, 3, padding=(1, 1), groups=64),
        # more vectors than wgrad reads at once, the last in part
        Conv(1, 296, 13, 8, 296, 5, 4, (2, 1), (2, 1), groups=296),
        Conv(2, 32, 30, 33, 32, 3, 3, padding=(1, 1), groups=32),
        Conv(1, 256, 14, 14, 256, 7, 7, padding=(3, 3), groups=256),
        Conv(1, 40, 15, 17, 40, 7, 6, padding=(3, 3), groups=40),  # too many taps: copied
        Conv(2, 33, 9, 31, 33, 5, 5, padding=(2, 2), groups=33),
        Conv(1, 24, 8, 5, 24, 5, 5, padding=(3, 5), groups=24),
        Conv(2, 40, 18, 35, 40, 3, 3, (2, 2), (1, 1), groups=40),
        Conv(2, 33, 11, 8, 33, 5, 5, (2, 2), (3, 2), groups=33),
        # bands of seven places and of fewer, of vectors of which the last is full twice, with parts of a strip
        Conv(1, 37, 40, 19, 37, 3, 3, padding=(1, 1), groups=37),
        Conv(20, 16, 5, 3, 16, 3, 3, padding=(4, 3), groups=16),  # rows and columns that meet padding alone
        Conv(3, 40, 3, 23, 40, 3, 3, groups=40),
        # so many channels and places that weights, or sums of wgrad, stay in registers over rectangles, and part of a long
        # row; places that no tap reaches
        Conv(1, 132, 9, 23, 132, 3, 3, padding=(1, 1), groups=132),
        Conv(1, 68, 9, 130, 68, 3, 3, (2, 1), (1, 1), groups=68),
        Conv(1, 68, 9, 11, 68, 2, 2, (3, 3), groups=68),
        Conv(1, 72, 4, 13, 72, 2, 3, padding=(0, 2), groups=72),
        Conv(1, 64, 13, 60, 64, 1, 3, groups=64),
    ],
    ids=str,
)
def test_depthwise_of_pixels(conv, dtype):
    """channels_last, read where it lies; also a multiple of many cache lines from pixel to pixel"""
    x, w, b = conv.tensors(dtype)

    def run(x, w, b):
        return CF.conv2d(x, w, b, *conv.arguments, algo="depthwise")

    y = run(channels_last(x), w, b)
    check_conv(run, channels_last(x), w, b, channels_last(torch.randn_like(y)), conv.arguments, str(conv))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("columns", [3, 5, 7, 9])
def test_depthwise_rows(columns, dtype):
    """Filters of a row, over rows of less than a vector to many, with less and more padding than they reach"""
    long = ((1, 230, columns + 1), (1, 397, columns // 2), (1, 260, 20))
    for height, width, padding in ((1, 3, columns), (1, 77, columns // 2), (3, 141, 0), *long):
        x, w = torch.randn(2, 19, height, width, dtype=dtype), torch.randn(19, 1, 1, columns, dtype=dtype)
        arguments = (1, (0, padding), 1, 19)
        dy = torch.randn(2, 19, height, width + 2 * padding - columns + 1, dtype=dtype)
        check_conv(
            lambda *t, arguments=arguments: CF.conv2d(*t, *arguments, algo="depthwise"),
            x,
            w,
            torch.randn(19, dtype=dtype),
            dy,
            arguments,
        )


@pytest.mark.parametrize("size", [3, 5])
def test_depthwise_of_one_row(size):
    """Square filters over long rows, where their middle row alone meets x"""
    for width in (60, 230):
        x, w = torch.randn(2, 5, 1, width), torch.randn(5, 1, size, size)
        arguments = (1, size // 2, 1, 5)
        check_conv(lambda *t, a=arguments: CF.conv2d(*t, *a), x, w, torch.randn(5), torch.randn_like(x), arguments)


@pytest.mark.parametrize("shape", [(0, 40, 5, 5), (3, 40, 1, 1)], ids=["no image", "padding alone"])
def test_weights_that_meet_nothing_have_no_gradient(shape):
    """What the call before has left in scratch memory must not show through."""
    w = torch.randn(40, 40, 3, 3, requires_grad=True)
    for x in (torch.randn(3, 40, 5, 5), torch.randn(shape)):
        y = CF.conv2d(x, w, padding=1, algo="register_tiled")
        (dw,) = torch.autograd.grad(y.sum(), w)
    dw[:, :, 1, 1] = 0  # the tap that meets an image of one pixel
    assert not dw.any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("channels", [1, 3, 6, 8, 9])
def test_direct_with_more_channels_than_lanes(channels, dtype):
    """A tile has up to eight channels, a vector as few as two lanes."""
    conv = Conv(2, channels, 6, 9, channels, 3, 2, padding=(1, 1))
    x, w, b = conv.tensors(dtype)
    dy = torch.randn_like(F.conv2d(x.double(), w.double(), None, *conv.arguments)).to(dtype)
    for layout in (torch.clone, channels_last):
        check_conv(
            lambda *t: CF.conv2d(*t, *conv.arguments, algo="direct"), layout(x), w, b, layout(dy), conv.arguments
        )


def problem(conv: Conv, dtype=torch.float32):
    x, w, _ = conv.tensors(dtype)
    return convlab.Conv2dProblem.of(x, w, *conv.arguments)


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_the_same_bits_for_any_number_of_threads(algo):
    convs = [
        Conv(5, 20, 19, 23, 33, 3, 3, (1, 2), (1, 1)),
        Conv(3, 4, 30, 17, 4, 3, 3, (1, 1), (1, 1), groups=4),
        Conv(70, 3, 9, 9, 6, 5, 5),
    ]
    algorithm = next(a for a in convlab.algorithms() if a.name == algo)
    for conv in convs:
        if not algorithm.supports(problem(conv), "forward")[0]:
            continue
        x, w, b = conv.tensors()
        results = []
        try:
            for threads in (1, 2, 3):
                torch.set_num_threads(threads)
                leaves = [t.clone().requires_grad_() for t in (x, w, b)]
                y = CF.conv2d(*leaves, *conv.arguments, algo=algo)
                results.append([y, *torch.autograd.grad(y.square().sum(), leaves)])
        finally:
            torch.set_num_threads(1)
        for other in results[1:]:
            assert all(torch.equal(a, b) for a, b in zip(results[0], other)), f"{algo} {conv}"


@pytest.mark.parametrize(
    "conv",
    [
        Conv(1, 512, 7, 7, 64, 3, 3, padding=(1, 1)),
        Conv(2, 64, 28, 28, 64, 3, 3, padding=(1, 1)),
        Conv(2, 256, 28, 28, 32, 1, 1),
    ],
    ids=str,
)
@pytest.mark.parametrize("layout", [torch.clone, channels_last], ids=["nchw", "channels_last"])
def test_error_at_most_twice_torchs(conv, layout):
    x, w, _ = (layout(t) if t is not None else t for t in conv.tensors(bias=False))
    dy = layout(torch.randn_like(F.conv2d(x, w, None, *conv.arguments)))

    def results(function, *tensors):
        leaves = [t.clone().requires_grad_() for t in tensors[:2]]
        y = function(*leaves, None, *conv.arguments)
        return [y.detach(), *torch.autograd.grad(y, leaves, tensors[2])]

    exact = results(F.conv2d, x.double(), w.double(), dy.double())
    for name, ours, theirs, truth in zip(
        ("forward", "dgrad", "wgrad"), results(CF.conv2d, x, w, dy), results(F.conv2d, x, w, dy), exact
    ):
        error, torchs = ((r - truth).abs().max().item() for r in (ours, theirs))
        assert error <= 2 * torchs + 1e-6 * truth.abs().max().item(), f"{name}: {error:.2e}, torch's is {torchs:.2e}"


def test_register_tiled_refuses_offsets_that_do_not_fit():
    x, w = torch.empty(1, 3, 40000, 40000, device="meta"), torch.empty(16, 3, 3, 3, device="meta")
    huge = dataclasses.replace(convlab.Conv2dProblem.of(x, w), backend="cpu")
    tiled = next(a for a in convlab.algorithms() if a.name == "register_tiled")
    assert tiled.supports(huge, "forward") == (False, "takes images of up to 2^31 - 1 elements")


def weak_symbols() -> list[tuple[str, str, str, int]]:
    """(instruction set, source, name, size) of what the kernels' objects of the build in place have, if others may
    replace it."""
    found = []
    for path in sorted(ROOT.glob("build/*/_C/csrc/cpu/**/*.kernel.cpp.*.o")):
        source, isa, _ = str(path).split("/_C/")[1].rsplit(".", 2)
        if not (ROOT / source).exists() or shutil.which("nm") is None:
            continue  # of an older build
        said = subprocess.run(["nm", "-CS", "--defined-only", str(path)], check=True, capture_output=True, text=True)
        lines = [line.split(None, 3) for line in said.stdout.splitlines()]
        found += [(isa, source, line[3], int(line[1], 16)) for line in lines if len(line) == 4 and line[2] in "WVu"]
    if not found:
        pytest.skip("needs the objects of an in-place build, and nm (binutils)")
    return found


def test_kernels_of_one_instruction_set_are_called_by_no_other():
    """A function that two sets share would be linked once, with the instructions of one of them."""
    shared = [symbol for symbol in weak_symbols() if f"convlab::{symbol[0]}::" not in symbol[2]]
    assert not shared


def test_functions_of_one_name_are_one_function():
    """Two that differ, in two files, would be linked once: one file would run the other's."""
    first = {}
    for isa, source, name, size in weak_symbols():
        assert first.setdefault((isa, name), (size, source))[0] == size, f"{name} in {source} and {first[isa, name][1]}"
