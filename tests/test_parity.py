"""Whatever torch.nn.functional accepts, convlab accepts with the same results, dtypes and strides, and refuses what
torch refuses."""

import itertools

import numpy as np
import pytest
import torch
from calls import FLOATS, INTEGERS, LAYOUTS, compare, drawn, laid

import convlab
import convlab.functional as CF

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same'", "ignore:.*deterministic")
GRAD_LAYOUTS = ["contiguous", "channels_last", "transposed", "ones"]

# x, w, (stride, padding, dilation, groups)
CONVS = {
    "plain": ((2, 4, 7, 8), (6, 4, 3, 3), ()),
    "all arguments": ((2, 4, 9, 8), (6, 2, 3, 2), ((2, 1), (1, 2), (1, 2), 2)),
    "pointwise": ((2, 4, 7, 8), (6, 4, 1, 1), ()),
    "one image": ((1, 4, 7, 8), (6, 4, 3, 3), ()),
    "one channel": ((2, 1, 7, 8), (6, 1, 3, 3), ()),
    "one filter": ((2, 4, 7, 8), (1, 4, 3, 3), ()),
    "one output": ((2, 4, 3, 3), (6, 4, 3, 3), ()),
    "one pixel": ((2, 4, 1, 1), (6, 4, 1, 1), ()),
    "one column": ((2, 4, 7, 1), (5, 4, 3, 1), ()),
    "one row": ((1, 3, 1, 9), (4, 3, 1, 3), ()),
    "depthwise": ((2, 4, 7, 8), (4, 1, 3, 3), (1, 1, 1, 4)),
    "depthwise with a multiplier": ((2, 4, 7, 8), (8, 1, 3, 3), (1, 1, 1, 4)),
    "wide padding": ((3, 5, 5, 5), (7, 5, 5, 5), (1, 4)),
    "empty batch": ((0, 4, 7, 8), (6, 4, 3, 3), ()),
    "no channels": ((2, 0, 7, 8), (6, 0, 3, 3), ()),
    "unbatched": ((4, 7, 8), (6, 4, 3, 3), (1, 1)),
    "stride beyond everything": ((2, 4, 7, 8), (6, 4, 3, 3), ((2**40, 2**31), 1)),
    "same": ((2, 4, 7, 8), (6, 4, 3, 3), (1, "same")),
    "asymmetric same": ((2, 4, 7, 8), (6, 4, 2, 4), (1, "same", (1, 3))),
    "valid": ((2, 4, 7, 8), (6, 4, 2, 4), ((2, 1), "valid")),
}


@pytest.mark.parametrize("name", CONVS)
def test_conv2d_layouts(name, device):
    """Every layout of input, weight and gradient. The layout of x and w decides that of all results."""
    x, w, arguments = CONVS[name]
    for x_layout, w_layout, grad_layout in itertools.product(LAYOUTS, LAYOUTS, GRAD_LAYOUTS):
        b = drawn((w[0],), device=device) if x_layout == w_layout else None
        compare(
            "conv2d",
            laid(drawn(x, device=device), x_layout),
            laid(drawn(w, device=device), w_layout),
            b,
            arguments=arguments,
            grad_layout=grad_layout,
            strides=device == "cpu",
        )


@pytest.mark.parametrize("dtype", FLOATS + INTEGERS, ids=str)
@pytest.mark.parametrize("name", CONVS)
def test_conv2d_dtypes(name, dtype, device):
    x, w, arguments = CONVS[name]
    for layout in ("contiguous", "channels_last"):
        compare(
            "conv2d",
            laid(drawn(x, dtype, device), layout),
            drawn(w, dtype, device),
            drawn((w[0],), dtype, device),
            arguments=arguments,
            strides=device == "cpu",
        )


def test_conv2d_sizes_of_zero():
    for n, c, h, w, k, r, s, p in itertools.product((0, 2), (0, 3), (0, 5), (0, 6), (0, 4), (0, 2), (0, 3), (0, 1, 2)):
        filters = drawn((k, c, r, s))
        compare("conv2d", drawn((n, c, h, w)), filters, drawn((k,)), arguments=(1, p), classes=bool(filters.numel()))
    for c, k, groups in itertools.product((0, 2, 4), (0, 2, 4), (0, 1, 2, -1)):
        for image in ((1, c, 5, 5), (c, 5, 5)):
            compare(
                "conv2d",
                drawn(image),
                drawn((k, c // 2 if groups == 2 else c, 3, 3)),
                arguments=(None, 1, 0, 1, groups),
            )


# x, (kernel_size, stride, padding, ceil_mode)
POOLS = [(2,), (3, 2, 1, True), (1, 1), ((3, 1), (2, 1), (1, 0), True), (1, 2, 0, True), ((2, 3), (2**30, 2**31 - 1))]
IMAGES = [
    (2, 3, 8, 9),
    (1, 3, 8, 9),
    (2, 1, 8, 9),
    (2, 3, 1, 9),
    (2, 3, 8, 1),
    (2, 3, 1, 1),
    (1, 1, 1, 1),
    (0, 3, 8, 9),
    (2, 0, 8, 9),
    (2, 3, 0, 9),
    (0, 0, 0, 0),
    (3, 8, 9),
    (0, 8, 9),
    (3, 0, 9),
]


def pooled(name, x, kernel_size, stride=None, padding=0, ceil_mode=False, **keywords):
    compare(name, x, kernel_size=kernel_size, stride=stride, padding=padding, ceil_mode=ceil_mode, **keywords)
    if name == "max_pool2d":
        compare(
            name,
            x,
            kernel_size=kernel_size,
            stride=stride,
            padding=padding,
            ceil_mode=ceil_mode,
            return_indices=True,
            **keywords,
        )


@pytest.mark.parametrize("name", ["max_pool2d", "avg_pool2d"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_pooling_layouts(layout, name, device):
    for image, grad_layout, pool in itertools.product(IMAGES, GRAD_LAYOUTS, POOLS):
        pooled(
            name,
            laid(drawn(image, device=device), layout),
            *pool,
            grad_layout=grad_layout,
            strides=device == "cpu",
            classes=device == "cpu",
        )


@pytest.mark.parametrize("name", ["max_pool2d", "avg_pool2d"])
@pytest.mark.parametrize("dtype", FLOATS + INTEGERS, ids=str)
def test_pooling_dtypes(dtype, name, device):
    for image, pool, layout in itertools.product(IMAGES[:2] + IMAGES[-3:], POOLS, ("contiguous", "channels_last")):
        pooled(name, laid(drawn(image, dtype, device), layout), *pool, strides=device == "cpu", classes=device == "cpu")


def test_pooling_sizes():
    for size, kernel, stride, padding, ceil_mode in itertools.product(
        (1, 2, 3, 7), (1, 2, 3, 4), (1, 2, 3, 5), (0, 1, 2), (False, True)
    ):
        x = drawn((1, 2, size, size + 1))
        for dilation in (1, 2, 3):
            compare(
                "max_pool2d",
                x,
                kernel_size=kernel,
                stride=stride,
                padding=padding,
                dilation=dilation,
                ceil_mode=ceil_mode,
                return_indices=True,
                grad_layout="contiguous" if dilation == 1 else None,
            )
        for count_include_pad, divisor in ((True, None), (False, None), (True, 3), (False, -1)):
            for t in (x, x.long()):
                compare("avg_pool2d", t, arguments=(kernel, stride, padding, ceil_mode, count_include_pad, divisor))


@pytest.mark.parametrize("name", ["max_pool2d", "avg_pool2d"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_pooling_special_values(value, name, device):
    x = drawn((2, 3, 8, 9), device=device)
    x[0, 1] = x[1, 0, 3, 4] = value
    for layout, pool in itertools.product(LAYOUTS, POOLS):
        pooled(name, laid(x, layout), *pool, strides=device == "cpu")


@pytest.mark.parametrize("name", ["leaky_relu", "relu"])
def test_activation_layouts(name, device):
    shapes = [
        (2, 3, 4, 5),
        (1, 3, 4, 5),
        (2, 1, 4, 5),
        (2, 3, 1, 1),
        (2, 0, 4, 5),
        (1, 1, 1, 1),
        (3, 8),
        (3, 1, 4),
        (2, 3, 4, 5, 6),
        (5,),
        (),
        (0,),
    ]
    for shape, layout, grad_layout in itertools.product(shapes, LAYOUTS, GRAD_LAYOUTS):
        x = laid(drawn(shape, device=device), layout)
        compare(
            name, x, grad_layout=grad_layout, strides=0 not in x.stride()
        )  # of expanded tensors, torch's two activations lie differently
        if "expanded" not in layout:
            compare(name, x * 1, inplace=True, grad_layout=None)


@pytest.mark.parametrize(
    "dtype", [*FLOATS, *INTEGERS, torch.uint16, torch.bool, torch.complex64, torch.float8_e4m3fn], ids=str
)
@pytest.mark.parametrize("name", ["leaky_relu", "relu"])
def test_activation_dtypes(name, dtype):
    for shape, inplace in itertools.product([(5,), (), (0,), (2, 3, 4, 5)], (False, True)):
        compare(name, drawn(shape).to(dtype), inplace=inplace, grad_layout=None)


SLOPES = [
    0,
    0.0,
    -0.0,
    1,
    -1,
    -0.5,
    2.5,
    float("inf"),
    float("-inf"),
    float("nan"),
    True,
    np.float32(0.1),
    np.int64(2),
    torch.tensor(0.1),
    torch.tensor(1),
    torch.tensor([0.1]),
    None,
    "x",
    [0.1],
    1e-50,
    1e300,
    10**400,
    np.array(0.1),
    np.array([0.1]),
]


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("slope", SLOPES, ids=repr)
def test_slopes(slope, dtype):
    x = torch.tensor([0.0, -0.0, 1, -1, float("inf"), float("-inf"), float("nan"), 1e-45, -1e-45, 3.3, -3.3]).to(dtype)
    compare("leaky_relu", x, arguments=(slope,))


# ---- forms of arguments ---------------------------------------------------------------------------------------------

TOO_FAR = 2**31
FORMS = [
    0,
    1,
    2,
    -1,
    (1,),
    [2],
    (1, 2),
    [2, 1],
    torch.Size([1, 2]),
    torch.Size([2]),
    (),
    [],
    (1, 1, 1),
    (1, 2, 3, 4),
    np.int64(2),
    (np.int64(1), np.int64(2)),
    [np.int32(2)],
    np.array([1, 2]),
    torch.tensor(2),
    torch.tensor([1, 2]),
    (torch.tensor(1), torch.tensor(2)),
    True,
    (True, 2),
    1.0,
    (1.0, 2.0),
    (1, 2.0),
    None,
    (None, 1),
    "1",
    "",
    "full",
    (0, 1),
    (-1, 1),
    (1, -1),
    TOO_FAR,
    2**64,
    range(1, 3),
    {1: 2},
    {1, 2},
    1 + 0j,
    np.float32(2),
    torch.tensor(2.0),
    (torch.tensor([1]), 1),
    ((1,), 2),
    float("nan"),
]


@pytest.mark.parametrize("argument", ["stride", "padding", "dilation", "groups"])
def test_conv2d_forms(argument):
    x, w = drawn((2, 4, 9, 10)), drawn((6, 4, 3, 3))
    for form in FORMS + (["same", "valid"] if argument == "padding" else []):
        compare("conv2d", x, w, grad_layout=None, **{argument: form})
        compare("conv2d", x[0], w, grad_layout=None, **{argument: form})
        if argument in ("stride", "dilation") and form is not TOO_FAR:  # torch pads by what overflows
            for padding in ("same", "valid"):
                compare("conv2d", x, w, grad_layout=None, **{argument: form, "padding": padding}, classes=False)


@pytest.mark.parametrize(
    "name,argument",
    [(p, a) for p in ("max_pool2d", "avg_pool2d") for a in ("kernel_size", "stride", "padding", "ceil_mode")]
    + [
        ("max_pool2d", "dilation"),
        ("max_pool2d", "return_indices"),
        ("avg_pool2d", "count_include_pad"),
        ("avg_pool2d", "divisor_override"),
    ],
)
def test_pooling_forms(name, argument):
    x = drawn((2, 3, 8, 9))
    for form in FORMS:
        for image in (x, x[0]):
            compare(name, image, grad_layout=None, **{"kernel_size": 3, argument: form})


def test_dimensions():
    shapes = [(), (1,), (2, 3), (2, 3, 4), (2, 3, 4, 5), (1, 2, 3, 4, 5)]
    for x, w in itertools.product(shapes, [(), (1,), (2, 3), (2, 3, 4), (4, 2, 2, 2), (3, 3, 1, 1), (2, 2, 2, 2, 2)]):
        compare("conv2d", drawn(x), drawn(w))
    for bias in [(), (1,), (6,), (5,), (6, 1), (1, 6), (0,)]:
        compare("conv2d", drawn((2, 4, 9, 10)), drawn((6, 4, 3, 3)), drawn(bias))
    for x, name in itertools.product(shapes, ("max_pool2d", "avg_pool2d")):
        compare(name, drawn(x), arguments=(2,), classes=name == "max_pool2d")


def test_biases_of_any_layout(device):
    x, w = drawn((2, 4, 9, 10), device=device), drawn((6, 4, 3, 3), device=device)
    for b in (
        drawn((12,), device=device)[::2],
        drawn((1,), device=device).expand(6),
        drawn((6,), device=device).flip(0),
    ):
        compare("conv2d", x, w, b, strides=device == "cpu")


def test_mixed_dtypes():
    for a, b in itertools.product([*FLOATS, torch.int32, torch.int64], repeat=2):
        compare("conv2d", drawn((2, 4, 7, 8), a), drawn((6, 4, 3, 3), b))
        compare("conv2d", drawn((2, 4, 7, 8), a), drawn((6, 4, 3, 3), a), drawn((6,), b))


# ---- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "dtype", [torch.complex64, torch.complex128, torch.bool, torch.float8_e5m2, torch.uint16], ids=str
)
def test_dtypes_without_kernels(dtype, device):
    """NotImplementedError, before anything runs; torch convolves complex numbers, and that is all that convlab
    lacks."""
    t = torch.zeros(1, 1, 2, 2, device=device).to(dtype)
    for call in (
        lambda: CF.conv2d(t, t),
        lambda: CF.max_pool2d(t, 1),
        lambda: CF.avg_pool2d(t, 1),
        lambda: CF.leaky_relu(t),
    ):
        with pytest.raises(NotImplementedError, match=str(dtype).removeprefix("torch.")):
            call()


def test_devices_and_storages_without_kernels():
    x, w = torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 3, 3)
    others = [x.to_sparse(), x.to_mkldnn(), torch.quantize_per_tensor(x, 0.1, 0, torch.quint8)]
    for t in others:
        for call in (
            lambda t: CF.conv2d(t, w),
            lambda t: CF.max_pool2d(t, 2),
            lambda t: CF.avg_pool2d(t, 2),
            CF.relu,
            CF.leaky_relu,
        ):
            with pytest.raises(NotImplementedError, match=r"(?i)sparse|mkldnn|quantized"):
                call(t)


def test_meta_tensors():
    x, w, b = drawn((2, 4, 9, 10)), drawn((6, 4, 3, 3)), drawn((6,))
    for layout in ("contiguous", "channels_last", "sliced"):
        for m in (laid(x, layout).to("meta"), laid(x[0], layout).to("meta")):
            compare(
                "conv2d", m, w.to("meta"), b.to("meta"), arguments=(1, 1), strides=False
            )  # torch's are not those of its CPU there
            for name in ("max_pool2d", "avg_pool2d"):
                compare(name, m, arguments=(3, 2, 1))
            for name in ("relu", "leaky_relu"):
                compare(name, m)
    for tensors in ((x, w.to("meta")), (x.to("meta"), w), (x, w, b.to("meta"))):
        with pytest.raises(RuntimeError, match="device"):
            CF.conv2d(*tensors)


@pytest.mark.parametrize(
    "not_a_tensor", [None, 1.0, [1.0], "x", np.zeros((2, 4, 9, 10), np.float32)], ids=lambda v: type(v).__name__
)
def test_what_is_no_tensor(not_a_tensor):
    x, w = drawn((2, 4, 9, 10)), drawn((6, 4, 3, 3))
    compare("conv2d", not_a_tensor, w)
    compare("conv2d", x, not_a_tensor)
    compare("conv2d", x, w, not_a_tensor)
    for name in ("max_pool2d", "avg_pool2d"):
        compare(name, not_a_tensor, arguments=(2,))
    for name in ("relu", "leaky_relu"):
        compare(name, not_a_tensor)


# ---- modes ----------------------------------------------------------------------------------------------------------


def test_inference_mode(device):
    with torch.inference_mode():
        x, w = drawn((2, 4, 9, 10), device=device), drawn((6, 4, 3, 3), device=device)
        compare("conv2d", x, w, grad_layout=None)
        for name in ("max_pool2d", "avg_pool2d"):
            compare(name, x, arguments=(2,), grad_layout=None)
        for name, inplace in itertools.product(("relu", "leaky_relu"), (False, True)):
            compare(name, x.clone(), inplace=inplace, grad_layout=None)


def test_in_place_keeps_no_copy(device):
    """What backward needs of an overwritten tensor is that tensor itself, or a byte an element."""
    for f in (CF.relu, CF.leaky_relu):
        h = drawn((2, 4, 9, 10), device=device).requires_grad_() * 1
        saved = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
            f(h, inplace=True)
        assert all(t.data_ptr() == h.data_ptr() or t.element_size() == 1 for t in saved)


def test_frozen_weights(device):
    """Only who wants a gradient gets one, and forward keeps only what that needs."""
    for wanted in itertools.product((False, True), repeat=3):
        leaves = [
            t.requires_grad_(r)
            for t, r in zip(
                (drawn((2, 4, 9, 10), device=device), drawn((6, 4, 3, 3), device=device), drawn((6,), device=device)),
                wanted,
            )
        ]
        saved = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
            y = CF.conv2d(*leaves)
        assert y.requires_grad == any(wanted)
        assert {t.data_ptr() for t in saved} == {leaves[i].data_ptr() for i in (0, 1) if wanted[1 - i]}
        if any(wanted):
            y.sum().backward()
        assert [t.grad is not None for t in leaves] == list(wanted)


@pytest.mark.parametrize(
    "name",
    [
        "plain",
        "all arguments",
        "pointwise",
        "depthwise",
        "asymmetric same",
        "unbatched",
        "one output",
        "empty batch",
        "no channels",
    ],
)
def test_conv2d_simulated(name):
    x, w, arguments = CONVS[name]
    for x_layout, grad_layout in itertools.product(
        ("contiguous", "channels_last", "sliced"), ("contiguous", "channels_last", "ones")
    ):
        with convlab.simulate(check=False):
            compare(
                "conv2d",
                laid(drawn(x), x_layout),
                drawn(w),
                drawn((w[0],)),
                arguments=arguments,
                grad_layout=grad_layout,
            )


@pytest.mark.parametrize("name", ["max_pool2d", "avg_pool2d"])
def test_pooling_simulated(name):
    for image, layout, pool in itertools.product(
        IMAGES[:4] + IMAGES[-3:], ("contiguous", "channels_last", "expanded"), POOLS[:4]
    ):
        with convlab.simulate(check=False):
            pooled(
                name,
                laid(drawn(image), layout),
                *pool,
                grad_layout="channels_last" if layout == "contiguous" else "contiguous",
            )


def test_activations_simulated():
    for name, layout, inplace in itertools.product(
        ("relu", "leaky_relu"), ("contiguous", "channels_last", "transposed"), (False, True)
    ):
        with convlab.simulate(check=False):
            compare(
                name, laid(drawn((2, 3, 4, 5)), layout) * 1, inplace=inplace, grad_layout=None if inplace else "ones"
            )
