"""The notebooks of docs/notebooks: kept as they ran, small, and what is kept is what comes out."""

import re

import pytest

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("ipykernel")
notebooks = pytest.importorskip("tools.notebooks")

NAMES = {"lenet_side_by_side", "a_kernel_with_a_bug"}


def named(paths):
    return [pytest.param(path, id=path.stem) for path in paths]


def test_there_are_two():
    assert {path.stem for path in notebooks.NOTEBOOKS} == NAMES


@pytest.mark.parametrize("path", named(notebooks.NOTEBOOKS))
def test_they_are_kept_as_they_ran(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert len(outputs) >= 5 and not [output for output in outputs if output.output_type == "error"]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    assert path.stat().st_size < 100_000
    assert not re.findall(r'"[^"]*(?:/home|/root|/tmp|/work)/', path.read_text())
    for target in re.findall(r"\]\((?!http)([^)]+)\)", "".join(cell.source for cell in notebook.cells)):
        assert (path.parent / target).exists(), target


@pytest.mark.long
@pytest.mark.parametrize("path", named(notebooks.NOTEBOOKS))
def test_what_is_kept_comes_out(path, tmp_path):
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    assert notebooks.differences(nbformat.read(path, as_version=4), notebooks.executed(path, str(tmp_path))) == []


def test_differences_are_found():
    cells = [nbformat.v4.new_code_cell(f"print({i})") for i in range(3)]
    for cell, text in zip(cells, "012"):
        cell.outputs = [nbformat.v4.new_output("stream", text=text)]
    kept, now = (nbformat.from_dict(nbformat.v4.new_notebook(cells=cells)) for _ in range(2))
    now = nbformat.reads(nbformat.writes(now), as_version=4)
    kept.cells[2].metadata["tags"] = ["varies"]
    now.cells[1].outputs[0].text = now.cells[2].outputs[0].text = "9"
    assert notebooks.differences(kept, now) == ["cell 2: ['1'] is kept, ['9'] came out"]
