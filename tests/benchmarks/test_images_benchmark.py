"""The benchmark of images runs at the smallest size, and its histograms count."""

import json

import numpy as np
import pytest

from benchmarks import common, images


def test_histograms_count():
  """Two values, each half of the time, one of them in each half of the places: one bit, or none by place."""
  pixels = np.zeros((4000, 2, 2, 3), np.uint8)
  pixels[:, 1] = 255
  assert images.histogram_bits(pixels, pixels[:10], by_place=False) == pytest.approx(1, abs=0.05)
  assert images.histogram_bits(pixels, pixels[:10], by_place=True) == pytest.approx(0, abs=0.15)
  assert images.histogram_bits(pixels, pixels[:10] + 1, by_place=True) > 11  # what never was has one count


def test_the_table(tmp_path, monkeypatch):
  monkeypatch.setenv("GLIBC_TUNABLES", "")
  monkeypatch.setattr(common, "busy", lambda: 0.0)
  names = "image_transformer, local 2D; image_transformer, local 1D, mixture"
  images.main(["--tiny", "--steps=2", f"--models={names}", f"--out={tmp_path}"])
  rows = json.loads((tmp_path / "images.json").read_text())["rows"]
  assert [row[0] for row in rows[:2]] == names.split("; ") and len(rows) == 4
  assert all(0 < float(row[3]) < 12 for row in rows)
  with pytest.raises(SystemExit, match="there is no 'pixel_cnn'"):
    images.main(["--tiny", "--models=pixel_cnn"])


def test_local_attention_by_size(tmp_path, monkeypatch):
  monkeypatch.setenv("GLIBC_TUNABLES", "")
  monkeypatch.setattr(common, "busy", lambda: 0.0)
  images.main(["--part=linear", "--tiny", "--rounds=1", f"--out={tmp_path}"])
  rows = json.loads((tmp_path / "images_linear.json").read_text())["rows"]
  assert len(rows) == 4 and all(float(figure.replace(",", "")) > 0 for row in rows for figure in row[2:])
