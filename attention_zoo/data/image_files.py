"""Sources of images from outside: folders and zip files, and TensorFlow Datasets.

Of each split there is a folder DIR/SPLIT or a file DIR/SPLIT.zip. Where it holds nothing but folders of images, these
are the classes. A part of one is written as TensorFlow Datasets does: "train[:1000]", "train[90%:]".
"""

import hashlib
import logging
import posixpath
import zipfile

import numpy as np

from attention_zoo import files
from attention_zoo.data import picture
from attention_zoo.data.splits import resolve
from attention_zoo.data.textfiles import digest
from attention_zoo.errors import UserError

logger = logging.getLogger(__name__)

_FORMAT = 1  # of what becomes of a file; part of every fingerprint
_TOLD = 20  # skipped files that a report names
_MOST_FILES = 10_000_000


class ImageFolder:
  """A folder of `data/images.py`'s source images. told: whether its classes are asked for."""

  told = True

  def __init__(self, roles, directory, size, *, bad, **options):
    if not directory:
      raise UserError("config.data.dir must name the folder of images.")
    if not files.exists(directory):
      raise UserError(f"config.data.dir={directory} does not exist.")
    self._roles, self._root, self._size, self._bad, self._options = roles, files.expand(directory), size, bad, options

  @property
  def classes(self) -> tuple[str, ...]:
    """Those of the training images."""
    with self._open("train") as found:
      return found.classes

  def pictures(self, split: str):
    classes, labels, skipped = self.classes if self.told else (), [], []
    with self._open(split) as found:
      own = found.classes
      if classes and (missing := {*own} - {*classes}):
        names = ", ".join(sorted(missing))[:200]
        raise UserError(f"{found.where} has the classes {names}, which the training images have not")
      if classes and not own:
        raise UserError(f"{found.where} has no folders of classes, but the training images have")
      picture.check_memory(len(found.names), self._size, found.where)
      pixels = np.empty((len(found.names), self._size, self._size, 3), np.uint8)
      for name in found.names:
        try:
          pixels[len(labels)] = picture.read(found.read(name), f"{found.where}/{name}", self._size, **self._options)
          labels.append(classes.index(name.split("/")[0]) if classes else 0)
        except UserError as error:
          if self._bad == "refuse":
            raise
          skipped.append(str(error))
      _tell(skipped, len(found.names), found.where)
    return pixels[: len(labels)], np.array(labels, np.int32)

  def fingerprint(self, split: str) -> str:
    part = resolve(split, self._roles).partition("[")[1:]
    with self._open(split) as found:
      return _digest(_FORMAT, self._size, self._options, found.digest(), *filter(None, part))

  def _open(self, split):
    name, _, part = resolve(split, self._roles).partition("[")
    for path, kind in ((self._root / name, _Folder), (self._root / f"{name}.zip", _Zip)):
      if path.is_dir() if kind is _Folder else path.is_file():
        found = kind(path)
        if not found.names:
          raise UserError(f"{path} has no images ({', '.join(picture.ENDINGS)}).")
        found.classes = _classes(found.names)  # whether or not a part has all
        if part:
          found.names = _part(found.names, f"[{part}", path)
        return found
    raise UserError(
      f"config.data.dir={self._root} has neither a folder {name} nor {name}.zip: name its splits in "
      "config.data.train_split and dev_split"
    )


def _is_image(name) -> bool:
  hidden = any(part.startswith((".", "__MACOSX")) for part in name.split("/"))
  return not hidden and name.lower().endswith(picture.ENDINGS)


def _classes(names) -> tuple[str, ...]:
  """The folders that hold all images; () where one lies beside them."""
  return tuple(sorted({name.split("/")[0] for name in names})) if all("/" in name for name in names) else ()


def _part(names, part, where) -> list[str]:
  """Those names that TFDS would take by "[:1000]" or "[90%:]", counted in an order that a hash gives, which mixes the
  classes. Raises UserError for what is no part."""
  import tensorflow_datasets as tfds

  whole = {"split": tfds.core.SplitInfo(name="split", shard_lengths=[len(names)], num_bytes=0, filename_template=None)}
  mixed = sorted(names, key=lambda name: hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest())
  try:
    (found,) = tfds.core.ReadInstruction.from_spec(f"split{part}").to_absolute(whole)
    taken = mixed[found.from_ : found.to]
  except (ValueError, KeyError, AssertionError):
    taken = []
  if not taken:
    raise UserError(
      f"{where} has {len(names)} images, of which {part} is no part: write for example [:100], [90%:] or [100:200]"
    )
  return sorted(taken)


class _Folder:
  def __init__(self, path):
    self.where = path
    found = (file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file())
    self.names = sorted(name for name in found if _is_image(name))

  def read(self, name) -> bytes:
    return files.read_bytes(self.where / name, picture.MOST)

  def digest(self) -> str:
    return _digest([(name, self._digest_of(name)) for name in self.names])

  def _digest_of(self, name) -> str:
    """Of what can be read of a file: one that cannot is skipped, or refused, when its pixels are asked for."""
    try:
      return hashlib.sha256(self.read(name)).hexdigest()
    except UserError as error:
      return str(error)

  def __enter__(self):
    return self

  def __exit__(self, *_):
    pass


class _Zip:
  def __init__(self, path):
    self.where = path
    try:
      self._archive = zipfile.ZipFile(path)
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError) as error:
      raise UserError(f"{path} is not a sound zip file: {error}") from error
    infos = [info for info in self._archive.infolist() if not info.is_dir()]
    if len(infos) > _MOST_FILES:
      raise UserError(f"{path} has more than {_MOST_FILES:,} files")
    names = [posixpath.normpath(info.filename).lstrip("/") for info in infos]
    inside = [(name, info) for name, info in zip(names, infos, strict=True) if _is_image(name)]
    # Often everything lies in one folder of the archive's own name.
    tops = {name.split("/")[0] for name, _ in inside}
    own = tops == {path.name.rpartition(".")[0]} and all("/" in name for name, _ in inside)
    if own or (len(tops) == 1 and all(name.count("/") > 1 for name, _ in inside)):
      inside = [(name.partition("/")[2], info) for name, info in inside]
    self._infos = dict(inside)
    self.names = sorted(self._infos)

  def read(self, name) -> bytes:
    try:
      with self._archive.open(self._infos[name]) as file:
        return file.read(picture.MOST + 1)  # `picture.read` refuses more
    except Exception as error:  # damaged, encrypted, or packed in an unknown way
      reason = " ".join(str(error).split())[:200] or type(error).__name__
      raise UserError(f"{self.where}/{name} cannot be unpacked: {reason}") from None

  def digest(self) -> str:
    return digest(self.where).hex()

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self._archive.close()


class ImageRecords:
  """A data set of TensorFlow Datasets with images in a field. told: whether its classes are asked for."""

  told = True

  def __init__(self, roles, directory, size, *, name, image, label, bad, **options):
    from attention_zoo.data.sources import TensorFlowDatasets

    features = TensorFlowDatasets(name, directory, (image,), roles).features
    fields = (image, label) if label in features else (image,)
    self.classes = tuple(features[label].names) if len(fields) == 2 and hasattr(features[label], "names") else ()
    self._records = TensorFlowDatasets(name, directory, fields if self.classes else (image,), roles)
    self._name, self._size, self._bad, self._options = name, size, bad, options

  def pictures(self, split: str):
    kept, labels, skipped, number = [], [], [], 0
    for number, (pixels, *label) in enumerate(self._records.values(split), 1):
      picture.check_memory(2 * number, self._size, self._name)  # in the end they are there twice
      try:
        if label and self.told and not 0 <= label[0] < len(self.classes):
          raise UserError(f"{self._name}, record {number} has no class: its label is {label[0]}")
        kept.append(picture.of_array(pixels, f"{self._name}, record {number}", self._size, **self._options))
        labels.append(int(label[0]) if label else 0)
      except UserError as error:
        if self._bad == "refuse":
          raise
        skipped.append(str(error))
    _tell(skipped, number, self._name)
    return np.stack(kept), np.array(labels, np.int32)

  def fingerprint(self, split: str) -> str:
    return _digest(_FORMAT, self._size, self._options, self._records.fingerprint(split))


def _digest(*parts) -> str:
  return hashlib.sha256(repr(parts).encode()).hexdigest()


def _tell(skipped, number, where):
  """Reports the images that were left out. Raises UserError where none is left."""
  if not skipped:
    if not number:
      raise UserError(f"{where} has no images")
    return
  more = f"; and {len(skipped) - _TOLD} more" if len(skipped) > _TOLD else ""
  report = f"{len(skipped)} of {number} images in {where} were skipped: {'; '.join(skipped[:_TOLD])}{more}"
  if len(skipped) == number:
    raise UserError(report)
  logger.warning("%s", report)
