"""What all checks of a callable share: tensors in awkward layouts, poisoned memory, calls whose failures say what was
called."""

from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from .compare import CheckError

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def _channels_last(t):
    return t.contiguous(memory_format=torch.channels_last)


def _transposed(t):
    return t.transpose(2, 3).contiguous().transpose(2, 3)


def _sliced(t):
    wide = torch.full(
        (t.shape[0] + 1, t.shape[1] + 2, t.shape[2] + 1, 2 * t.shape[3] + 3),
        float("nan"),
        dtype=t.dtype,
        device=t.device,
    )
    return wide[1:, 1:-1, 1:, 2:-1:2].copy_(t)


# Of four-dimensional tensors. "sliced" has NaN between its elements and around them.
LAYOUTS = {"contiguous": lambda t: t, "channels_last": _channels_last, "transposed": _transposed, "sliced": _sliced}


@contextmanager
def poisoned_memory():
    """In deterministic mode torch fills every new tensor with NaN (or the largest integer): what a callable forgets to
    write, shows."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    fill = torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.utils.deterministic.fill_uninitialized_memory = fill


@dataclass
class Checked:
    """What a check that found nothing has looked at."""

    calls: int = 0
    skipped: list[str] = field(default_factory=list)  # problems that the callable refused with NotImplementedError

    @classmethod
    def of(cls, op: str, fn) -> "Checked":
        """For the check of that name, before it calls anything. Raises TypeError for what cannot be called."""
        if not callable(fn):
            raise TypeError(f"{op}: fn must be a function, got {fn!r}; a file with a kernel is for check_kernel")
        return cls()

    def __str__(self):
        return f"{self.calls} calls agree with float64" + (
            f"; {len(self.skipped)} problems refused" if self.skipped else ""
        )

    def call(self, what: str, fn, *arguments):
        """fn(*arguments). Raises Refused where it raises NotImplementedError, CheckError for every other exception."""
        try:
            result = fn(*arguments)
        except NotImplementedError as refusal:
            self.skipped.append(f"{what}: {refusal}")
            raise Refused from refusal
        except Exception as error:
            raise CheckError(f"{what} raised {type(error).__name__}: {error}") from error
        self.calls += 1
        return result

    def finish(self) -> "Checked":
        if not self.calls:
            raise CheckError(
                f"nothing could be checked: the callable refused every problem; the first: {next(iter(self.skipped), 'there was none')}"
            )
        return self


class Refused(Exception):
    """The callable cannot do a problem, and says so."""


@contextmanager
def of_layout(name: str):
    """Around what has been right for contiguous tensors: what goes wrong inside is the layout's fault."""
    try:
        yield
    except CheckError as error:
        raise CheckError(
            f"{error}\n  suggests: contiguous tensors come out right; these are {name}, so use their strides, or .contiguous()"
        ) from error


def expect_tensor(y, like, what: str):
    if not isinstance(y, torch.Tensor):
        raise CheckError(f"{what} returned {type(y).__name__}, expected a tensor")
    if y.dtype != like.dtype or y.device != like.device:
        raise CheckError(
            f"{what} returned {y.dtype} on {y.device}, expected {like.dtype} on {like.device}, as its input"
        )


def expect_unchanged(tensors, before, what: str):
    for name, t, copy in zip(["x", "w", "b"], tensors, before):
        if t is not None and not torch.equal(t.detach().nan_to_num(nan=7.0), copy.nan_to_num(nan=7.0)):
            raise CheckError(f"{what} changed its argument {name}")


def expect_same_bits(first, again, what: str):
    for name, a, b in zip(("the result", *("a gradient",) * 3), first, again):
        if not torch.equal(a.nan_to_num(nan=7.0), b.nan_to_num(nan=7.0)):
            raise CheckError(
                f"{what}: {name} has other bits in another run of the same call\n"
                "  suggests: a race, memory that nobody wrote, or sums in an order that changes (atomics)"
            )
