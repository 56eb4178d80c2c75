"""The notebooks run from the first cell to the last, and are in the README."""

import asyncio
import json
import pathlib

import pytest

from attention_zoo import tasks
from attention_zoo.configs.image import quickstart as image_quickstart
from attention_zoo.configs.music import quickstart
from attention_zoo.training import loop
from tests.data import tunes

NOTEBOOKS = pathlib.Path(__file__).parents[1] / "notebooks"
NAMES = sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))


def run(name):
  """The notebook with its outputs."""
  nbformat = pytest.importorskip("nbformat")
  nbclient = pytest.importorskip("nbclient")
  notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
  resources = {"metadata": {"path": str(NOTEBOOKS.parent)}}
  client = nbclient.NotebookClient(notebook, timeout=600, resources=resources)
  return asyncio.run(client.async_execute())  # execute() leaves an event loop open


def text(notebook):
  return "".join(str(cell.get("outputs", "")) for cell in notebook.cells)


@pytest.fixture(autouse=True)
def as_a_reader_has_it(monkeypatch):
  """One device, and pictures in the notebook."""
  for name in ("XLA_FLAGS", "MPLBACKEND"):
    monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_can_be_opened_in_colab_and_holds_no_outputs(name):
  notebook = json.loads((NOTEBOOKS / f"{name}.ipynb").read_text())
  first, second = ("".join(cell["source"]) for cell in notebook["cells"][:2])
  assert f"colab.research.google.com/github/attention-zoo/attention_zoo/blob/main/notebooks/{name}.ipynb" in first
  assert 'find_spec("attention_zoo") is None' in second
  assert not any(cell.get("outputs") for cell in notebook["cells"])
  assert f"notebooks/{name}.ipynb" in (NOTEBOOKS.parent / "README.md").read_text()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of Jupyter's own
def test_translate(tiny_run, monkeypatch):
  monkeypatch.setenv("ZOO_RUN", str(tiny_run))
  done = text(run("translate"))
  assert "decoder/layer_0" in done and "text/html" in done


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_sample():
  done = text(run("sample"))
  assert "temperature = 0.7" in done and "<iframe" in done and "text/markdown" in done


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_attention_tour():
  notebook = run("attention_tour")
  done = text(notebook)
  assert "largest gradient of an output by a later input: 0.0" in done and "gathered 8.6 GB, skewed 4.2 MB" in done
  pictures = [out for cell in notebook.cells for out in cell.get("outputs", ()) if "image/png" in out.get("data", {})]
  assert len(pictures) == 9


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_ablation(tmp_path, monkeypatch):
  monkeypatch.setenv("ZOO_GRID", str(tmp_path / "grid"))
  done = text(run("ablation"))
  assert "2 of 2 rows are done" in done and "text/markdown" in done and (tmp_path / "grid" / "report.html").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_tpu():
  done = text(run("tpu"))
  assert "8 devices of the kind cpu" in done and "relative difference" in done
  assert "1 x v5e:2x2, rules fsdp" in done or "libtpu is not installed" in done


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_pretraining(monkeypatch):
  for name in ("ZOO_STEPS", "ZOO_TUNING"):
    monkeypatch.setenv(name, "2")
  done = text(run("pretraining"))
  assert "random   accuracy" in done and "GPT      accuracy" in done and "image/svg+xml" in done
  assert "In a shocking finding," in done and "335,141,888" in done


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
  done = text(run("music"))
  assert "<audio" in done and "the motif ends at 2.40 s" in done and "1 players" in done and "nats per event" in done
  assert done.count("image/png") == 2


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of Jupyter's own
def test_images(monkeypatch, tmp_path):
  config = image_quickstart.get_config()
  config.model.update(d_model=8, d_ff=8, num_heads=2, d_k=4, d_v=4, num_layers=1, attention="local(block_width=12)")
  config.data.update(source="shapes(train=16, dev=4, test=8)", size=4, batch_size=8)
  config.train.update(steps=2, eval_every=2, checkpoint_every=2, log_every=2, dev_samples=0)
  tasks.validate(config)
  loop.train(tasks.make(config, tmp_path / "run"), config, tmp_path / "run", quiet=True)
  monkeypatch.setenv("ZOO_IMAGES", str(tmp_path / "run"))
  done = text(run("images"))
  assert "the given rows are untouched: True" in done and done.count("bits a value") == 3
  assert done.count("image/png") == 3
