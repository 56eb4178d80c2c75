import io
import math
import re
import struct
import types
import warnings
from html import unescape

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from attention_zoo.training import metrics as metrics_lib
from attention_zoo.training import tensorboard


def test_tensorboard_reads_the_events(tmp_path):
  metrics = metrics_lib.Metrics(tmp_path, 0, 4, quiet=True)
  for step in (1, 2, 300):
    metrics.write(step, "train", {"loss": 1.0 / step, "perplexity": math.inf})
  metrics.close()
  metrics = metrics_lib.Metrics(tmp_path, 2, 4, quiet=True)
  metrics.write(3, "train", {"loss": 0.25})
  metrics.close()
  assert len(list((tmp_path / "tensorboard").iterdir())) == 2
  events = EventAccumulator(str(tmp_path / "tensorboard"))
  events.Reload()
  assert [(e.step, e.value) for e in events.Scalars("train/loss")] == [(1, 1.0), (2, 0.5), (3, 0.25)]
  assert events.Scalars("train/perplexity")[0].value == math.inf


def test_values_that_tensorboard_cannot_hold(tmp_path):
  log = metrics_lib.Metrics(tmp_path, 0, 9, quiet=True)
  log.write(1, "dev", {"perplexity": math.exp(100), "low": -1e300})
  log.close()
  assert metrics_lib.read_metrics(tmp_path)[0]["perplexity"] == math.exp(100)
  (path,) = (tmp_path / "tensorboard").iterdir()
  assert all(struct.pack("<f", value) in path.read_bytes() for value in (math.inf, -math.inf))


def test_a_clock_set_back_keeps_the_order(tmp_path, monkeypatch):
  monkeypatch.setattr(tensorboard.time, "time", lambda: 2000.0)
  tensorboard.EventFile(tmp_path, 0).close()
  monkeypatch.setattr(tensorboard.time, "time", lambda: 1000.0)
  tensorboard.EventFile(tmp_path, 5).close()
  names = sorted(path.name for path in tmp_path.iterdir())
  assert [name.split(".")[3] for name in names] == ["0000002000", "0000002001"]


def test_a_bucket_has_no_empty_folders(tmp_path, monkeypatch):
  monkeypatch.setattr(type(tensorboard.epath.Path(tmp_path)), "mkdir", lambda *_, **__: None)
  written = []
  monkeypatch.setattr(tensorboard.files, "Appender", lambda path: types.SimpleNamespace(append=written.append))
  tensorboard.EventFile(tmp_path / "tensorboard", 0)
  assert len(written) == 2 and not (tmp_path / "tensorboard").exists()


def test_tensorboard_reads_texts_and_pictures(tmp_path):
  with_alpha, gray = io.BytesIO(), io.BytesIO()
  pixels = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
  Image.fromarray(pixels).save(with_alpha, "png")
  Image.fromarray(pixels[..., 0]).save(gray, "png")
  events = tensorboard.EventFile(tmp_path, 0)
  events.text(3, "samples", "**Ein** Hund\n\n한국어")
  events.text(5, "samples", "x" * 1000)
  events.image(3, "attention/layer_0", with_alpha.getvalue())
  events.image(4, "gray", gray.getvalue())
  events.scalars(6, {"loss": 2.0})
  events.close()
  read = EventAccumulator(str(tmp_path))
  read.Reload()
  first, second = read.Tensors("samples")
  assert (first.step, first.tensor_proto.string_val[0].decode()) == (3, "**Ein** Hund\n\n한국어")
  assert (second.step, second.tensor_proto.string_val[0]) == (5, b"x" * 1000)
  assert read.SummaryMetadata("samples").plugin_data.plugin_name == "text"
  (image,) = read.Images("attention/layer_0")
  assert (image.step, image.width, image.height) == (3, 3, 2)
  np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(image.encoded_image_string))), pixels)
  assert read.Images("gray")[0].step == 4 and read.Scalars("loss")[0].value == 2.0
  with pytest.raises(ValueError, match="not a PNG"):
    events.image(5, "gray", b"GIF89a")


def test_names_of_folders_and_files_are_taken_as_they_are(tmp_path):
  folder = tmp_path / "layers=[2,2]*"
  folder.mkdir()
  (folder / "events.out.tfevents.9999999999.mine").write_text("")
  (folder / "events.out.tfevents.old.mine").write_text("")
  tensorboard.EventFile(folder, 0).close()
  assert (folder / "events.out.tfevents.10000000000.attention_zoo").exists()


def test_a_table_of_samples_shows_every_character():
  with warnings.catch_warnings(action="ignore"):  # of what TensorBoard brings along
    from tensorboard import plugin_util

  evil = "a | *b* _c_ <script>x</script> & [d](http://e) `f` \\ # 한국어\nsecond"
  table = tensorboard.markdown_table([{"source": "x", "reference": ""}, {"source": evil, "reference": "y"}])
  html = plugin_util.markdown_to_safe_html(table)
  assert (
    html.count("<tr>") == 3
    and html.count("<td>") == 4
    and "<em>" not in html
    and "<a" not in html
    and "<code>" not in html
  )
  shown = re.sub(r"<br\s*/?>", "\n", re.findall(r"<td>(.*?)</td>", html, re.S)[2])
  assert unescape(shown) == evil
