"""Every operator against torch, on every backend there is: `python -m convlab.doctor.selftest`, which the doctor
starts.

Prints lines of JSON: {"build": build_info()}; then, for each test, {"starts": name}, so that a crash can be told whose
it is, and {"name": name, "error": largest relative difference} or {"name": name, "failure": text}.
"""

import json
from contextlib import nullcontext

import torch
import torch.nn.functional as F

import convlab
import convlab.functional as CF
from convlab._measure import error_of

CALLS = {
    "conv2d": lambda f, x, w, b, **algo: f.conv2d(
        x, w, b, stride=(2, 1), padding=(1, 2), dilation=(1, 2), groups=2, **algo
    ),
    "max_pool2d": lambda f, x, w, b: f.max_pool2d(x, 3, 2, 1, ceil_mode=True),
    "avg_pool2d": lambda f, x, w, b: f.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
    "leaky_relu": lambda f, x, w, b: f.leaky_relu(x, 0.1),
    "relu": lambda f, x, w, b: f.relu(x),
}


def results(call, functional, tensors, **algo):
    """The call's output, and the gradients to its tensors."""
    tensors = [t.clone().requires_grad_() for t in tensors]
    y = call(functional, *tensors, **algo)
    return [
        y.detach(),
        *(g for g in torch.autograd.grad(y.square().sum(), tensors, allow_unused=True) if g is not None),
    ]


def algorithms(op, backend, x, w):
    """What to try of an operator: "auto", and of a convolution the algorithms that can do it."""
    problem = convlab.Conv2dProblem.of(x, w, (2, 1), (1, 2), (1, 2), 2) if op == "conv2d" else None
    return [{}] + [
        {"algo": a.name}
        for a in convlab.algorithms()
        if problem and backend in a.backends and a.supports(problem, "forward")[0]
    ]


def error(op, device, simulated):
    """The largest relative difference from torch, over outputs, gradients and algorithms."""
    torch.manual_seed(0)
    tensors = [torch.randn(shape) for shape in ((2, 4, 11, 9), (6, 2, 3, 3), (6,))]
    expected = [t.double() for t in results(CALLS[op], F, tensors)]
    with convlab.simulate() if simulated else nullcontext():
        tensors = [t.to(device) for t in tensors]
        backend = "cuda" if simulated else device
        found = (results(CALLS[op], CF, tensors, **algo) for algo in algorithms(op, backend, *tensors[:2]))
        return max(error_of([t.cpu() for t in outputs], expected) for outputs in found)


def say(**facts):
    print(json.dumps(facts), flush=True)


def main():
    build = convlab.build_info()
    say(build=build)
    backends = [("CPU", "cpu", False), ("simulator", "cpu", True)] + [("CUDA", "cuda", False)] * (
        build["cuda"] and torch.cuda.is_available()
    )
    for backend, device, simulated in backends:
        for op in CALLS:
            name = f"{op}, {backend}"
            say(starts=name)
            try:
                say(name=name, error=error(op, device, simulated))
            except Exception as failure:  # noqa: BLE001  (what it says is the finding)
                say(name=name, failure=" ".join(str(failure).split()))


if __name__ == "__main__":
    main()
