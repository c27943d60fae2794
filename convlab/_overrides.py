"""What tensors that are not plain ones make of convlab's functions: those that have `__torch_function__` decide themselves,
and others get a sentence where no operator takes them."""

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch.fx import Proxy

from .arguments import check_storage


def overridden(function: Callable[..., Any], tensors: tuple[Any, ...], *args: Any, **kwargs: Any) -> Any:
    """What the first of `tensors`, or the mode, that has `__torch_function__` makes of the call.

    Not for Dynamo, which asks them where it meets an operator: it takes them for asking again inside of their own call.
    """
    for t in tensors:
        if isinstance(t, Proxy):
            check_tracer(t.tracer)
        elif type(t).__name__ == "ExpandedWeight":
            raise NotImplementedError(
                f"{function.__name__}: torch's per-sample gradients by ExpandedWeights know torch.nn's layers alone: use "
                "torch.func.vmap over torch.func.grad of torch.func.functional_call, or convlab.restore(model) before"
            )
    return torch.overrides.handle_torch_function(function, tensors, *args, **kwargs)


def explained(error: Exception, op: str, **tensors: torch.Tensor | None) -> Exception:
    """What to say where torch found no kernel for these tensors: the reason, where it is known; else what torch says."""
    try:
        check_storage(op, **tensors)
    except NotImplementedError as reason:
        return reason
    distributed = sys.modules.get("torch.distributed.tensor")
    for name, t in tensors.items():
        if distributed and isinstance(t, distributed.DTensor):
            return NotImplementedError(
                f"{op}: {name} is a DTensor, and convlab's operators have no sharding rules: use {name}.to_local() or "
                f"{name}.full_tensor(); to share a batch, DistributedDataParallel or fully_shard (FSDP2)"
            )
    return error


def check_tracer(tracer: Any) -> None:
    """Raises NotImplementedError for a tracer that looks for torch.nn's layers to replace them by quantized ones."""
    quantization = sys.modules.get("torch.ao.quantization.fx.tracer")
    if quantization and isinstance(tracer, quantization.QuantizationTracer):
        raise NotImplementedError(f"convlab: {CONVERT_AFTER_QUANTIZATION}")


CONVERT_AFTER_QUANTIZATION = (
    "quantization replaces torch.nn's layers, not convlab's: call convlab.restore(model) before the model is prepared; "
    "after it was quantized, convlab.convert() takes the parts of it that stay float"
)
