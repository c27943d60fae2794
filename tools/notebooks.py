"""Runs the notebooks of docs/notebooks, each from its first cell to its last in an empty folder.

python -m tools.notebooks           says where something else comes out than is kept in them
python -m tools.notebooks --write   keeps what came out

Of a cell with the tag "varies" (times, pictures) only the kind of what comes out is compared.
"""

import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from tools import run

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))


def executed(path: Path, folder: str):
    """The notebook with what its cells put out now. Raises nbclient's CellExecutionError where one fails."""
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": folder}}).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # when it ran
        if cell.cell_type == "code":
            cell.outputs = joined(cell.outputs)
    notebook.metadata.language_info = {"name": "python"}  # and by which Python
    return notebook


def joined(outputs: list) -> list:
    """What a stream says in pieces, cut where it happened to be sent, in one."""
    whole = []
    for output in outputs:
        if whole and output.output_type == "stream" == whole[-1].output_type and output.name == whole[-1].name:
            whole[-1].text += output.text
        else:
            whole.append(output)
    return whole


def text_of(output) -> str:
    """What an output says; of a picture, that it is one."""
    if output.output_type == "stream":
        return output.text
    return next(value if kind.startswith("text/") else kind for kind, value in output.data.items())


def differences(kept, now) -> list[str]:
    """Of two runs of one notebook: a line for each cell that put out something else."""
    found = []
    for number, (a, b) in enumerate(zip(kept.cells, now.cells, strict=True), start=1):
        if a.cell_type != "code":
            continue
        of = (lambda output: output.output_type) if "varies" in a.metadata.get("tags", []) else text_of
        before, after = ([of(output) for output in cell.outputs] for cell in (a, b))
        if before != after:
            found.append(f"cell {number}: {before} is kept, {after} came out")
    return found


def main() -> int:
    status = 0
    for path in NOTEBOOKS:
        with tempfile.TemporaryDirectory() as folder:
            now = executed(path, folder)
        if sys.argv[1:] == ["--write"]:
            nbformat.write(now, path)
        elif found := differences(nbformat.read(path, as_version=4), now):
            print(path.name, *found, sep="\n  ")
            status = 1
    return status


if __name__ == "__main__":
    run(main)
