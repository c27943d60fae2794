"""What the kernels ask of memory, as the course's numbers and the notes on top of the kernels say."""

import json
import math
import sys

import kernel_notes
import pytest

import convlab
from convlab.layers import Conv, find
from convlab.testing import traffic


@pytest.mark.parametrize("layer,replication", [("lenet-c1@8", 19.1), ("lenet-c3@32", 12.8), ("lenet-c5@128", 1.0)])
def test_unrolling_replicates_the_input(layer, replication):
    """LeNet's unrolled inputs are so many times the inputs: reads of x by whatever unrolls, once or once for each row
    of tiles."""
    layer = find(layer)
    problem = layer.problem()
    times = {}
    for rung in [a for a in convlab.algorithms() if a.supports(problem, "forward")[0]]:
        plan = rung.plan(problem, "forward")
        if plan["product"] != (layer.K, layer.N * math.prod(layer.outputs), math.prod(layer.w[1:])):
            continue  # it does not multiply by the unrolled input
        reads = kernel_notes.counted(kernel_notes.case_of(rung, layer, "forward"))["x"]
        times[rung.name] = reads / replication
        assert any(times[rung.name] == pytest.approx(t, rel=0.005) for t in (1, plan["grid"][1])), (rung.name, reads)
    assert any(t == pytest.approx(1, rel=0.005) for t in times.values()), times


@pytest.fixture(scope="module")
def cases():
    by_source = {}
    for case in kernel_notes.all_cases():
        by_source.setdefault(case.source, []).append(case)
    return by_source


# tensor_core_*.cu are conv2d_tensor_core.cu's kernels, compiled apart, and stand in its note.
SOURCES = sorted(
    p.name for p in kernel_notes.KERNELS.glob("*.cu") if not p.name.startswith(("tensor_core_", "warpgroup_"))
)


def test_the_table_has_every_kernel():
    assert sorted(json.loads(traffic.COUNTS.read_text())) == SOURCES


@pytest.mark.parametrize("source", SOURCES)
def test_the_table_is_what_is_counted(source, cases):
    """Every row is there and stands on top of the kernel, and one of them, which takes turns with the files, is counted
    again."""
    rows = traffic.noted(source)
    assert list(rows) == [(case.layer, case.what) for case in cases[source]]
    assert kernel_notes.split(source)[1] == kernel_notes.note_of(rows), f"{source}: make kernel-notes ARGS=--write"
    i = sum(map(ord, source)) % len(rows)
    counted = kernel_notes.counted(cases[source][i])
    assert counted == list(rows.values())[i], f"{source}, row {i}: make kernel-notes ARGS=--write, if it is meant"


def test_the_command_prints_and_writes(capsys, monkeypatch, tmp_path):
    small = Conv(1, 2, 6, 6, 3, 3, 3, name="a small one")
    page = '// What it does    something.\n{}#include "launchers.h"\n// What is here stays.\n'
    (tmp_path / "conv2d_direct.cu").write_text(page.format(""))
    monkeypatch.setattr(kernel_notes, "KERNELS", tmp_path)
    monkeypatch.setattr(traffic, "COUNTS", tmp_path / "counts.json")
    monkeypatch.setattr(
        kernel_notes, "all_cases", lambda: list(kernel_notes.convolution_cases(lambda able=None: [small]))
    )
    monkeypatch.setattr(sys, "argv", ["kernel_notes.py", "--only", "direct"])
    kernel_notes.main()
    table = capsys.readouterr().out.split("conv2d_direct.cu\n")[1].splitlines()
    assert [line.split()[:4] for line in table[1:]] == [["a", "small", "one", p] for p in ("forward", "dgrad", "wgrad")]
    for _ in range(2):  # the second time over the first's
        monkeypatch.setattr(sys, "argv", ["kernel_notes.py", "--only", "direct", "--write"])
        kernel_notes.main()
        note = "".join(f"//   {line}\n" for line in table)
        assert (tmp_path / "conv2d_direct.cu").read_text() == page.format(kernel_notes.NOTE + "\n" + note)
    assert traffic.lines_of(traffic.noted("conv2d_direct.cu")) == table
    assert list(json.loads((tmp_path / "counts.json").read_text())) == ["conv2d_direct.cu"]
