"""What the kernels ask of memory, as the course's numbers and the notes on top of the kernels say."""

import sys
from pathlib import Path

import pytest

import convlab

sys.path.insert(0, str(Path(__file__).parent.parent / "tools"))
import kernel_notes  # noqa: E402
from kernel_notes import Layer  # noqa: E402


@pytest.mark.parametrize(
    "layer,replication",
    [
        pytest.param(Layer((8, 1, 32, 32), (6, 1, 5, 5)), 19.1, id="C1"),
        pytest.param(Layer((32, 6, 14, 14), (16, 6, 5, 5)), 12.8, id="C3"),
        pytest.param(Layer((128, 16, 5, 5), (120, 16, 5, 5)), 1.0, id="C5"),
    ],
)
def test_unrolling_replicates_the_input(layer, replication):
    """LeNet's unrolled inputs are so many times the inputs: reads of x by whatever unrolls, once or once for each row of tiles."""
    problem = kernel_notes.problem_of(layer)
    times = {}
    for rung in [a for a in convlab.algorithms() if a.supports(problem, "forward")[0]]:
        plan = rung.plan(problem, "forward")
        N, C, H, W = layer.x
        if plan["product"] != (layer.w[0], N * (H - layer.w[2] + 1) * (W - layer.w[3] + 1), C * layer.w[2] * layer.w[3]):
            continue  # it does not multiply by the unrolled input
        reads = kernel_notes.requested(kernel_notes.run_counted(rung, layer, "forward"), "input") / (4 * N * C * H * W)
        times[rung.name] = reads / replication
        assert any(times[rung.name] == pytest.approx(t, rel=0.005) for t in (1, plan["grid"][1])), (rung.name, reads)
    assert any(t == pytest.approx(1, rel=0.005) for t in times.values()), times


def test_the_command_prints_every_rung(capsys, monkeypatch):
    small = Layer((1, 2, 6, 6), (3, 2, 3, 3))
    monkeypatch.setattr(kernel_notes, "LAYERS", {"a small one": small})
    monkeypatch.setattr(sys, "argv", ["kernel_notes.py"])
    kernel_notes.main()
    printed = capsys.readouterr().out
    assert "a small one: x [1, 2, 6, 6]" in printed
    for rung, pass_ in kernel_notes.supported(small):
        assert any(line.startswith(rung.name) and pass_ in line for line in printed.splitlines()), (rung.name, pass_)
