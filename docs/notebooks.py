"""Run the notebooks and keep their outputs in them: `python docs/notebooks.py [NAME ...]`.

Each starts in an empty folder with this interpreter as its kernel, which needs ipykernel and
nbclient (the group `notebooks` of pyproject.toml). The documentation shows what they gave.
"""

import os
import re
import sys
import tempfile
from itertools import groupby
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parents[1] / "examples" / "notebooks"
BAR = re.compile(r"^[^┏┡]*━")  # of progress; a table's lines have corners


def run(path: Path) -> None:
    """Run one notebook, and write it with what it gave."""
    notebook = nbformat.read(path, 4)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SGMFT_CACHE"] = str(Path(folder) / "cache")
        NotebookClient(notebook, timeout=1200, resources={"metadata": {"path": folder}}).execute()
        write(notebook, path, folder)


def write(notebook: Any, path: Path, folder: str) -> None:
    """Write a notebook that has run in a folder, without what differs from run to run."""
    for cell in notebook.cells:
        cell.metadata = {}
        if cell.cell_type == "code":
            cell.outputs = _tidy(cell.outputs, folder, cell.source.startswith("%%bash"))
    notebook.metadata.language_info = {"name": "python"}
    nbformat.write(notebook, path)


def _tidy(outputs: list[Any], folder: str, commands: bool) -> list[Any]:
    """Join what was printed; leave out bars, and warnings of Python with the places of files."""
    kept = []
    for name, group in groupby(outputs, lambda x: x.get("name")):
        if name is None:
            kept += group
        elif name == "stdout" or commands:
            lines = "".join(x["text"] for x in group).split("\n")
            lines = [re.split(r"\r|\x1b\[2K", line)[-1] for line in lines]
            lines = [re.sub(r"\x1b\[[?\d;]*[A-Za-z]", "", x) for x in lines if not BAR.search(x)]
            text = "\n".join(x.rstrip() for x in lines if x.strip()).replace(f"{folder}/", "")
            kept.append(nbformat.v4.new_output("stream", name="stdout", text=text))
    return kept


if __name__ == "__main__":
    os.environ["COLUMNS"] = "100"  # of the commands' tables
    os.environ["PYTHONPATH"] = os.pathsep.join(
        [str(HERE.parent), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    )
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for name in sys.argv[1:] or sorted(path.stem for path in HERE.glob("*.ipynb")):
        run(HERE / f"{name}.ipynb")
        print(name)
