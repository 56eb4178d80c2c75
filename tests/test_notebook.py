"""The notebooks run from the first cell to the last."""

import pathlib

import pytest

NOTEBOOKS = pathlib.Path(__file__).parents[1] / "notebooks"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of Jupyter's own
def test_translate(tiny_run, monkeypatch):
  nbformat = pytest.importorskip("nbformat")
  nbclient = pytest.importorskip("nbclient")
  monkeypatch.setenv("ZOO_RUN", str(tiny_run))
  notebook = nbformat.read(NOTEBOOKS / "translate.ipynb", as_version=4)
  done = nbclient.NotebookClient(
    notebook, timeout=600, resources={"metadata": {"path": str(NOTEBOOKS.parent)}}
  ).execute()
  text = "".join(str(cell.get("outputs", "")) for cell in done.cells)
  assert "decoder/layer_0" in text and "text/html" in text
