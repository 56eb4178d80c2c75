"""Images of TensorFlow Datasets, prepared as array_record."""

import subprocess
import sys

import numpy as np
import pytest
from ml_collections import ConfigDict

from attention_zoo.data import images, picture
from attention_zoo.errors import UserError

_PREPARE = """
import io
import sys
import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

class TinyImages(tfds.core.GeneratorBasedBuilder):
  VERSION = tfds.core.Version("1.0.0")

  def _info(self):
    label = tfds.features.ClassLabel(names=("cat", "dog"))
    features = {"image": tfds.features.Image(shape=(None, None, 3)), "label": label}
    return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

  def _split_generators(self, manager):
    return {"train": self._generate_examples(0, 6), "test": self._generate_examples(6, 8)}

  def _generate_examples(self, start, stop):
    for i in range(start, stop):
      buffer = io.BytesIO()
      Image.fromarray(np.full((4, 5 + i % 2, 3), 10 * i, np.uint8)).save(buffer, format="PNG")
      yield i, {"image": io.BytesIO(buffer.getvalue()), "label": i % 2 if i < 7 else -1}

tfds.disable_progress_bar()
TinyImages(data_dir=sys.argv[1], file_format="array_record").download_and_prepare()
"""


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
  directory = tmp_path_factory.mktemp("tfds")
  subprocess.run([sys.executable, "-c", _PREPARE, directory], check=True, capture_output=True)
  return str(directory)


def source(text, directory, num_classes=2):
  splits = dict(train_split="train", dev_split="train[:2]", test_split="test")
  data = ConfigDict(dict(source=text, size=4, num_classes=num_classes, **splits))
  return images.make_images(data, directory)


def test_images_and_their_classes_are_read(directory):
  made = source("tfds(name='tiny_images')", directory)
  assert made.classes == ("cat", "dog")
  pixels, labels = made.pictures("train")
  assert pixels.shape == (6, 4, 4, 3) and pixels.dtype == np.uint8
  order = np.argsort(pixels[:, 0, 0, 0])
  assert pixels[order, 0, 0, 0].tolist() == [0, 10, 20, 30, 40, 50] and labels[order].tolist() == [0, 1] * 3
  assert len(made.pictures("dev")[0]) == 2
  assert made.fingerprint("train") != made.fingerprint("test")


def test_what_does_not_fit_is_told(directory):
  with pytest.raises(UserError, match="tiny_images, record 1 has [56] x 4 pixels, not 4 x 4"):
    source("tfds(name='tiny_images', resize='none', bad='refuse')", directory).pictures("train")
  with pytest.raises(UserError, match="tiny_images has no text in picture"):
    source("tfds(name='tiny_images', image='picture')", directory)


def test_an_image_without_a_class_is_one_where_no_class_is_asked_for(directory):
  with pytest.raises(UserError, match="tiny_images, record [12] has no class: its label is -1"):
    source("tfds(name='tiny_images', bad='refuse')", directory).pictures("test")
  assert len(source("tfds(name='tiny_images', bad='refuse')", directory, num_classes=0).pictures("test")[0]) == 2


def test_more_than_memory_holds_is_refused_and_not_skipped(directory, monkeypatch):
  monkeypatch.setattr(picture, "MOST_MEMORY", 4 * 48)
  with pytest.raises(UserError, match="take fewer"):
    source("tfds(name='tiny_images')", directory).pictures("train")
