"""The same call to torch and to convlab: both give the same, or both refuse. What test_parity.py and
test_random_arguments.py share."""

import math

import torch
import torch.nn.functional as F

import convlab.functional as CF

PAIRS = {
    name: (getattr(F, name), getattr(CF, name)) for name in ("conv2d", "max_pool2d", "avg_pool2d", "leaky_relu", "relu")
}
FLOATS = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
INTEGERS = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]

LAYOUTS = {
    "contiguous": lambda t: t,
    "channels_last": lambda t: t.contiguous(memory_format=torch.channels_last),
    "transposed": lambda t: t.transpose(-1, -2).contiguous().transpose(-1, -2),
    "permuted": lambda t: t.transpose(0, 1).contiguous().transpose(0, 1),
    "sliced": lambda t: torch.cat([t, t], -1)[..., ::2] if t.shape[-1] else t,
    "expanded": lambda t: t[:1].expand_as(t) if t.shape[0] else t,
    "expanded channels": lambda t: t[:, :1].expand_as(t) if t.shape[1] else t,
}


def laid(t: torch.Tensor, layout: str) -> torch.Tensor:
    """`t`, or as much of it as the layout leaves, in that layout; as it is where that needs more dimensions."""
    enough = 4 if layout == "channels_last" else 2
    return LAYOUTS[layout](t) if t.dim() == 4 or (enough == 2 and t.dim() >= 2) else t


def drawn(shape, dtype=torch.float32, device="cpu") -> torch.Tensor:
    """Random values that are exact in every dtype, so that sums of some thousand products are, too."""
    return torch.randint(0 if dtype is torch.uint8 else -4, 5, shape, device=device).to(dtype)


class Outcome:
    """What a call gave: tensors (outputs, then gradients to its floating-point tensors), or the error it raised."""

    def __init__(self, function, tensors, arguments, keywords, grad_layout):
        self.tensors, self.error = [], None
        leaves = [
            t.detach().requires_grad_(t.is_floating_point() and grad_layout is not None)
            if isinstance(t, torch.Tensor)
            else t
            for t in tensors
        ]
        try:
            result = function(*leaves, *arguments, **keywords)
            self.tensors = list(result) if isinstance(result, tuple) else [result]
            y = self.tensors[0]
            if y.requires_grad:
                torch.manual_seed(1)
                dy = drawn(y.shape, y.dtype).to(y.device)  # of the CPU's random numbers: the same on any device
                dy = (
                    torch.ones((), dtype=y.dtype, device=y.device).expand_as(y)
                    if grad_layout == "ones"
                    else laid(dy, grad_layout)
                )
                self.tensors += torch.autograd.grad(
                    y, [t for t in leaves if isinstance(t, torch.Tensor) and t.requires_grad], dy
                )
        except Exception as error:  # noqa: BLE001  (whatever torch raises, convlab has to raise as well)
            self.error = error


def wrong_on_cuda(name: str, tensors, arguments, keywords) -> str:
    """What torch is known to do wrong with such floats on CUDA, or "": there, what it does on the CPU is the
    definition."""
    x = tensors[0]
    if not (isinstance(x, torch.Tensor) and x.is_cuda and x.is_floating_point()):
        return ""
    if (
        name == "conv2d"
        and arguments
        and max([arguments[0]] if isinstance(arguments[0], int) else arguments[0], default=0) >= 2**31
    ):
        return "refuses strides of 2^31 and more"
    if x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last):
        if name == "avg_pool2d" and keywords.get("padding"):
            return (
                "the gradient of a padded channels_last input is that of other pixels, in 2.11 (pytorch issue 188344)"
            )
        if name == "max_pool2d" and bool(x.isneginf().any()):
            return (
                "the winner of a channels_last window of nothing but -inf is the first pixel of all, not the window's"
            )
    return ""


def of_the_cpu(function):
    """`function`, computed on the CPU; results and gradients lie where the tensors do."""

    def called(*tensors, **keywords):
        result = function(*(t.cpu() if isinstance(t, torch.Tensor) else t for t in tensors), **keywords)
        return tuple(t.cuda() for t in result) if isinstance(result, tuple) else result.cuda()

    return called


def meaningful_strides(t: torch.Tensor) -> list[int]:
    """Of a dimension of one element, the stride says nothing (and torch's own dtypes differ there)."""
    return [stride for size, stride in zip(t.shape, t.stride()) if size != 1] if t.numel() else []


def compare(
    name: str, *tensors, arguments=(), grad_layout="contiguous", strides=True, classes=True, **keywords
) -> Outcome:
    """Calls torch's and convlab's function `name` and insists on the same outputs, gradients, dtypes and strides, or on
    an error from both: of the same class, where `classes`. Returns convlab's outcome.

    grad_layout: a layout of `LAYOUTS`, "ones" for an expanded one, None for no gradients.
    """
    theirs, our = PAIRS[name]
    theirs = of_the_cpu(theirs) if wrong_on_cuda(name, tensors, arguments, keywords) else theirs
    torchs, ours = (Outcome(f, tensors, arguments, keywords, grad_layout) for f in (theirs, our))
    shown = [f"{tuple(t.shape)} {t.stride()} {t.dtype}" if isinstance(t, torch.Tensor) else repr(t) for t in tensors]
    call = f"{name}({', '.join([*shown, *map(repr, arguments), *(f'{k}={v!r}' for k, v in keywords.items())])}), gradient {grad_layout}"
    if torchs.error or ours.error:
        assert torchs.error and ours.error, f"{call}: torch {torchs.error!r}, convlab {ours.error!r}"
        if classes:
            kind = type(torchs.error)
            assert isinstance(ours.error, kind), f"{call}: {ours.error!r} where torch raises {torchs.error!r}"
        return ours
    assert len(torchs.tensors) == len(ours.tensors), call
    for i, (a, b) in enumerate(zip(torchs.tensors, ours.tensors)):
        what = f"{call}: result {i}"
        assert (a.shape, a.dtype, a.device) == (b.shape, b.dtype, b.device), what
        if strides:
            assert meaningful_strides(a) == meaningful_strides(b), (
                f"{what} of {tuple(a.shape)} has strides {b.stride()}, torch's has {a.stride()}"
            )
        if a.device.type != "meta":
            _assert_close(a, b, what)
    return ours


def _assert_close(a, b, what):
    if not a.is_floating_point():
        assert torch.equal(a, b), what
        return
    eps = torch.finfo(a.dtype).eps
    error = (a.double() - b.double()).abs()
    bound = 4 * eps * a.double().abs() + 16 * eps
    wrong = ~((error <= bound) | (a == b) | (a.isnan() & b.isnan()))
    assert not wrong.any(), (
        f"{what}: {b[wrong][0].item()} where torch has {a[wrong][0].item()}, {int(wrong.sum())} of {math.prod(a.shape)} differ"
    )
