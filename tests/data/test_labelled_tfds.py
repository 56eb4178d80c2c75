"""Labelled text of TensorFlow Datasets, read as GLUE is: names of classes, numbers, and what is wrong."""

import subprocess
import sys

import pytest

from attention_zoo.data.labelled import Example, tfds
from attention_zoo.errors import UserError

ROLES = {"train": "train", "dev": "validation", "test": ""}

_PREPARE = """
import sys
import numpy as np
import tensorflow_datasets as tfds

class TinyGlue(tfds.core.GeneratorBasedBuilder):
  VERSION = tfds.core.Version("1.0.0")

  def _info(self):
    text, score = tfds.features.Text(), tfds.features.Scalar(dtype=np.float32)
    kinds = tfds.features.ClassLabel(names=["no", "yes"])
    return tfds.core.DatasetInfo(
      builder=self, features=tfds.features.FeaturesDict({"one": text, "two": text, "label": kinds, "score": score})
    )

  def _split_generators(self, manager):
    return {"train": self._generate_examples((0, 1)), "validation": self._generate_examples((-1,))}

  def _generate_examples(self, labels):
    for i, label in enumerate(labels):
      yield i, {"one": f"first ü {i}", "two": f"second {i}", "label": label, "score": 0.5 * i}

tfds.disable_progress_bar()
TinyGlue(data_dir=sys.argv[1], file_format="array_record").download_and_prepare()
"""


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
  directory = tmp_path_factory.mktemp("tfds")
  subprocess.run([sys.executable, "-c", _PREPARE, directory], check=True, capture_output=True)
  return str(directory)


def read(directory, split="train", **fields):
  return sorted(tfds(ROLES, directory, "tiny_glue", **fields).examples(split))


def test_pairs_with_the_names_of_classes_and_sentences_with_numbers(directory):
  found = read(directory, text="one", second="two")
  assert {example[:2] for example in found} == {(("first ü 0", "second 0"), "no"), (("first ü 1", "second 1"), "yes")}
  found = read(directory, text="two", label="score")
  assert {example[:2] for example in found} == {(("second 0",), "0.0"), (("second 1",), "0.5")}
  assert found[0].where.startswith("record ") and isinstance(found[0], Example)


def test_what_is_wrong(directory):
  with pytest.raises(UserError, match="has no text in three; its features are .* Set its text, second and label or"):
    read(directory, text="three")
  with pytest.raises(UserError, match="record 1 of the split train of tiny_glue: the score is no text"):
    read(directory, text="score")
  with pytest.raises(UserError, match="record 1 of the split dev of tiny_glue: the label is missing"):
    read(directory, "dev", text="one")
