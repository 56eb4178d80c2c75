import re
import shlex
import shutil
import subprocess
import sys

import pytest

from attention_zoo.data.sources import TensorFlowDatasets
from attention_zoo.errors import UserError

ROLES = {"train": "train[:50%]", "dev": "validation", "test": ""}

_PREPARE = """
import sys
import tensorflow_datasets as tfds

class TinyTranslate(tfds.core.GeneratorBasedBuilder):
  VERSION = tfds.core.Version("1.0.0")

  def _info(self):
    return tfds.core.DatasetInfo(builder=self, features=tfds.features.Translation(languages=("en", "de")))

  def _split_generators(self, manager):
    return {"train": self._generate_examples(4000), "validation": self._generate_examples(3)}

  def _generate_examples(self, n):
    for i in range(n):
      yield i, {"en": f"number {i}", "de": f"die Zahl ü {i}"}

tfds.disable_progress_bar()
TinyTranslate(data_dir=sys.argv[1], file_format=sys.argv[2]).download_and_prepare()
"""


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
  directory = tmp_path_factory.mktemp("tfds")
  subprocess.run([sys.executable, "-c", _PREPARE, directory, "array_record"], check=True, capture_output=True)
  return str(directory)


def test_reads_a_translation_dataset(directory):
  source = TensorFlowDatasets("tiny_translate", directory, ("de", "en"), ROLES)
  assert source.splits == ("train", "validation")
  assert sorted(source.pairs("dev")) == [(f"die Zahl ü {i}", f"number {i}") for i in range(3)]
  pairs = list(source.pairs("train"))
  assert len(set(pairs)) == 2000, "the role is played by half of the split"
  assert all(de.removeprefix("die Zahl ü") == en.removeprefix("number") for de, en in pairs)
  assert source.fingerprint("train") != source.fingerprint("train[:25%]")
  assert source.fingerprint("dev") == source.fingerprint("validation")


def test_the_fingerprint_is_of_what_was_prepared(directory, tmp_path):
  shutil.copytree(directory, tmp_path, dirs_exist_ok=True)
  (info,) = tmp_path.rglob("dataset_info.json")
  info.write_text(re.sub('"numBytes": "[0-9]+"', '"numBytes": "12345"', info.read_text()))
  prints = {
    TensorFlowDatasets("tiny_translate", str(where), ("en", "de"), ROLES).fingerprint("validation")
    for where in (directory, tmp_path)
  }
  assert len(prints) == 2


def test_tensorflow_is_not_imported(directory):
  code = f"""
import sys
from attention_zoo.data.sources import TensorFlowDatasets
source = TensorFlowDatasets("tiny_translate", {directory!r}, ("en", "de"), {ROLES})
assert len(list(source.pairs("dev"))) == 3
TensorFlowDatasets("wmt14_translate/de-en", {directory!r}, ("en", "de"), {ROLES})
print("tensorflow" in sys.modules)"""
  done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
  assert done.stdout.strip() == "False"


@pytest.mark.parametrize("name", ["wmt14_translate/de-en", "wmt14_translate/fr-en"])
def test_a_dataset_that_is_not_prepared_names_the_command(tmp_path, name):
  language = name[-5:-3]
  source = TensorFlowDatasets(name, str(tmp_path), ("en", language), ROLES)
  with pytest.raises(UserError, match=rf"tfds build {name} --file_format=array_record --data_dir={tmp_path}"):
    source.pairs("train")


def test_a_command_can_be_pasted_whatever_the_folder_is_called(tmp_path):
  folder = tmp_path / "a b;c"
  with pytest.raises(UserError) as error:
    TensorFlowDatasets("wmt14_translate/de-en", str(folder), ("en", "de"), ROLES).pairs("train")
  assert shlex.split(str(error.value).splitlines()[-1])[-1] == f"--data_dir={folder}"


def test_another_file_format_names_the_command(directory, tmp_path):
  shutil.copytree(directory, tmp_path, dirs_exist_ok=True)
  (info,) = tmp_path.rglob("dataset_info.json")
  info.write_text(info.read_text().replace("array_record", "tfrecord"))
  with pytest.raises(UserError, match="tfrecord(.|\n)*tfds build tiny_translate --file_format=array_record"):
    TensorFlowDatasets("tiny_translate", str(tmp_path), ("en", "de"), ROLES)


def test_wrong_names_are_told_in_one_line(directory):
  with pytest.raises(UserError, match='"no_such_set"') as error:
    TensorFlowDatasets("no_such_set", directory, ("en", "de"), ROLES)
  assert len(str(error.value).splitlines()) == 1
  with pytest.raises(UserError, match="no text in fr; its features are de, en"):
    TensorFlowDatasets("tiny_translate", directory, ("en", "fr"), ROLES)
  source = TensorFlowDatasets("tiny_translate", directory, ("en", "de"), ROLES)
  with pytest.raises(UserError, match='no split "nosuch"; it has train, validation'):
    source.pairs("nosuch")
  with pytest.raises(UserError, match="data.test_split"):
    source.pairs("test")
