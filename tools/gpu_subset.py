"""Every kernel once or twice on small, awkward problems, against float64: what compute-sanitizer watches, which is too
slow for the suite.

compute-sanitizer --tool racecheck python -m tools.gpu_subset
python -m tools.gpu_subset --simulated          without a GPU: the checking simulator watches instead
"""

import argparse
import sys
from contextlib import nullcontext

import torch
import torch.nn.functional as F

import convlab
import convlab.functional as CF
from convlab.layers import SMALL
from tools import run

torch.backends.cudnn.allow_tf32 = False  # float32 is compared as float32
TOLERANCE = {torch.float32: 2e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}  # of the largest element


class Subset:
    """Runs and compares; `checks` counts."""

    def __init__(self, device, problems=SMALL):
        self.device, self.problems, self.checks = device, problems, 0

    def compare(self, what, got, expected):
        tolerance = TOLERANCE[got.dtype]
        got = got.detach().cpu().double()
        difference = (got - expected).abs().max().item() if got.numel() else 0.0
        if not difference <= tolerance * max(expected.abs().max().item(), 1e-30):
            sys.exit(f"gpu_subset: {what} is wrong by {difference:.2e}")
        self.checks += 1

    def convolutions(self, dtype, names):
        for layer in self.problems:
            x, w, b = (t.to(dtype) for t in layer.tensors())
            exact = [t.double().requires_grad_() for t in (x, w, b)]
            y = F.conv2d(*exact, *layer.arguments)
            dy = torch.randn(y.shape).to(dtype)
            expected = [y.detach(), *torch.autograd.grad(y, exact, dy.double())]
            for rung in (rung for rung in convlab.algorithms() if rung.name in names):
                problem = convlab.Conv2dProblem.of(x.to(self.device), w.to(self.device), *layer.arguments)
                able = {pass_: rung.name for pass_ in rung.passes if rung.supports(problem, pass_)[0]}
                if not able:
                    continue
                given = [t.to(self.device).requires_grad_() for t in (x, w, b)]
                out = CF.conv2d(*given, *layer.arguments, algo=able)
                got = [out, *torch.autograd.grad(out, given, dy.to(self.device))]
                for name, g, e in zip(("y", "dx", "dw", "db"), got, expected):
                    self.compare(f"{name} of {rung.name} in {dtype} on {layer}", g, e)

    def others(self):
        x = torch.randn(2, 3, 11, 13)
        for name, ours, theirs in (
            ("max_pool2d", lambda t: CF.max_pool2d(t, 3, 2, 1), lambda t: F.max_pool2d(t, 3, 2, 1)),
            ("avg_pool2d", lambda t: CF.avg_pool2d(t, 3, 2, 1), lambda t: F.avg_pool2d(t, 3, 2, 1)),
            ("leaky_relu", lambda t: CF.leaky_relu(t, 0.1), lambda t: F.leaky_relu(t, 0.1)),
            ("relu", CF.relu, F.relu),
        ):
            given, exact = x.to(self.device).requires_grad_(), x.double().requires_grad_()
            y, expected = ours(given), theirs(exact)
            dy = torch.randn(expected.shape)
            self.compare(name, y, expected.detach())
            gradient = torch.autograd.grad(y, given, dy.to(self.device))[0]
            self.compare("gradient of " + name, gradient, torch.autograd.grad(expected, exact, dy.double())[0])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulated", action="store_true", help="on the host, in the checking simulator")
    parser.add_argument("--first", type=int, metavar="N", help="of the convolutions, the first N: not every kernel")
    args = parser.parse_args()
    torch.manual_seed(0)
    if not args.simulated and not torch.cuda.is_available():
        sys.exit(f"gpu_subset: torch {torch.__version__} sees no GPU: --simulated goes without")
    subset = Subset("cpu" if args.simulated else "cuda", SMALL[: args.first])
    with convlab.simulate() if args.simulated else nullcontext():
        subset.convolutions(torch.float32, [rung.name for rung in convlab.algorithms()])
        for dtype in (torch.float16, torch.bfloat16):
            subset.convolutions(dtype, ["tensor_core", "warpgroup"])
        subset.others()
    if not args.simulated:
        torch.cuda.synchronize()
    print(f"{subset.checks} outputs {'' if args.first else 'of every kernel '}are right")


if __name__ == "__main__":
    run(main)
