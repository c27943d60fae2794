"""What the kernels ask of memory, as the course's numbers and the notes on top of the kernels say."""

import sys

import kernel_notes
import pytest
from kernel_notes import Layer

import convlab
from convlab.testing.traffic import NOTE, digits


@pytest.mark.parametrize(
    "layer,replication",
    [
        pytest.param(Layer((8, 1, 32, 32), (6, 1, 5, 5)), 19.1, id="C1"),
        pytest.param(Layer((32, 6, 14, 14), (16, 6, 5, 5)), 12.8, id="C3"),
        pytest.param(Layer((128, 16, 5, 5), (120, 16, 5, 5)), 1.0, id="C5"),
    ],
)
def test_unrolling_replicates_the_input(layer, replication):
    """LeNet's unrolled inputs are so many times the inputs: reads of x by whatever unrolls, once or once for each row
    of tiles."""
    problem = kernel_notes.problem_of(layer)
    times = {}
    for rung in [a for a in convlab.algorithms() if a.supports(problem, "forward")[0]]:
        plan = rung.plan(problem, "forward")
        N, C, H, W = layer.x
        if plan["product"] != (
            layer.w[0],
            N * (H - layer.w[2] + 1) * (W - layer.w[3] + 1),
            C * layer.w[2] * layer.w[3],
        ):
            continue  # it does not multiply by the unrolled input
        reads = kernel_notes.numbers_of(kernel_notes.case_of(rung, "", layer, "forward"))["x"]
        times[rung.name] = reads / replication
        assert any(times[rung.name] == pytest.approx(t, rel=0.005) for t in (1, plan["grid"][1])), (rung.name, reads)
    assert any(t == pytest.approx(1, rel=0.005) for t in times.values()), times


@pytest.fixture(scope="module")
def cases():
    by_source = {}
    for case in kernel_notes.all_cases():
        by_source.setdefault(case.source, []).append(case)
    return by_source


SOURCES = sorted(path.name for path in kernel_notes.KERNELS.glob("*.cu"))


@pytest.mark.parametrize("source", SOURCES)
def test_the_notes_are_what_is_counted(source, cases):
    """Every row is there, and one of them, which takes turns with the files, is counted again."""
    _, (title, _, *rows), _ = kernel_notes.split(source)
    assert title == NOTE
    words = [row.removeprefix("//").split() for row in rows]
    expected = [[*case.layer.split(), case.what] for case in cases[source]]
    assert [row[: len(name)] for row, name in zip(words, expected, strict=True)] == expected
    i = SOURCES.index(source) % len(rows)
    counted = [digits(number) for number in kernel_notes.numbers_of(cases[source][i]).values()]
    assert words[i][len(expected[i]) :] == counted, (
        f"{source}, {expected[i]}: make kernel-notes ARGS=--write, if it is meant"
    )


def test_the_command_prints_and_writes(capsys, monkeypatch, tmp_path):
    small = {"a small one": Layer((1, 2, 6, 6), (3, 2, 3, 3))}
    page = '// What it does    something.\n{}#include "launchers.h"\n// What is here stays.\n'
    (tmp_path / "conv2d_direct.cu").write_text(page.format(""))
    monkeypatch.setattr(kernel_notes, "KERNELS", tmp_path)
    monkeypatch.setattr(kernel_notes, "all_cases", lambda: list(kernel_notes.convolution_cases(small)))
    monkeypatch.setattr(sys, "argv", ["kernel_notes.py", "--only", "direct"])
    kernel_notes.main()
    table = capsys.readouterr().out.split("conv2d_direct.cu\n")[1].splitlines()
    assert [line.split()[:4] for line in table[1:]] == [["a", "small", "one", p] for p in ("forward", "dgrad", "wgrad")]
    for _ in range(2):  # the second time over the first's
        monkeypatch.setattr(sys, "argv", ["kernel_notes.py", "--only", "direct", "--write"])
        kernel_notes.main()
        note = "".join(f"//   {line}\n" for line in table)
        assert (tmp_path / "conv2d_direct.cu").read_text() == page.format(NOTE + "\n" + note)
