"""The notebooks run from the first cell to the last."""

import json
import pathlib

import pytest

from attention_zoo import tasks
from attention_zoo.configs.music import quickstart
from attention_zoo.training import loop
from tests.data import tunes

NOTEBOOKS = pathlib.Path(__file__).parents[1] / "notebooks"


def executed(name):
  """All outputs of a notebook as one text."""
  nbformat = pytest.importorskip("nbformat")
  nbclient = pytest.importorskip("nbclient")
  notebook = nbformat.read(NOTEBOOKS / name, as_version=4)
  resources = {"metadata": {"path": str(NOTEBOOKS.parent)}}
  done = nbclient.NotebookClient(notebook, timeout=600, resources=resources).execute()
  return "".join(str(cell.get("outputs", "")) for cell in done.cells)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of Jupyter's own
def test_translate(tiny_run, monkeypatch):
  monkeypatch.setenv("ZOO_RUN", str(tiny_run))
  text = executed("translate.ipynb")
  assert "decoder/layer_0" in text and "text/html" in text


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of Jupyter's own
def test_music(monkeypatch, tmp_path):
  config = quickstart.get_config()
  config.model.update(d_model=8, d_ff=8, num_heads=2, d_k=4, d_v=4, num_layers=1)
  path = tmp_path / "chorales.json"
  path.write_text(json.dumps({split: [tunes.grid(24, i).tolist() for i in range(4)] for split in ("train", "dev")}))
  config.data.update(source="chorales", dir=str(path), batch_tokens=256, row_length=32)
  config.train.update(steps=2, eval_every=2, checkpoint_every=2, log_every=2, dev_samples=0)
  config.decode.update(max_tokens=16)
  tasks.validate(config)
  loop.train(tasks.make(config, tmp_path / "run"), config, tmp_path / "run", quiet=True)
  monkeypatch.setenv("ZOO_MUSIC", str(tmp_path / "run"))
  text = executed("music.ipynb")
  assert "<audio" in text and "the motif ends at 2.40 s" in text and "1 players" in text and "nats per event" in text
  assert text.count("image/png") == 2
