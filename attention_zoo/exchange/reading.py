"""A folder of Hugging Face transformers, opened as somebody else's: nothing of it is run, and no array is read before
its name, type and shape are known to be the config's.

  config.json                                          which model, and its sizes
  model.safetensors, or model.safetensors.index.json   the parameters, in one file or in several
  vocab.json, merges.txt, source.spm, ...              the vocabulary

Pickles (pytorch_model.bin, fairseq's .pt) and TensorFlow's checkpoints are refused, with what to do about them.
"""

import os
import pathlib
import re
from typing import NamedTuple

import numpy as np
import safetensors

from attention_zoo import files
from attention_zoo.data.joint_pieces import check_pieces
from attention_zoo.data.tokenizer import BOS, EOS, PAD, UNK
from attention_zoo.errors import UserError
from attention_zoo.training import safetensors_file, untrusted

PARAMETERS, INDEX = "model.safetensors", "model.safetensors.index.json"
TYPES = ("F32", "F16", "BF16")
MOST_BYTES = 1 << 26  # of a file that holds no parameters
MOST, MOST_LAYERS = 1 << 20, 1 << 12  # of a size in config.json
ACTIVATIONS = {
  "relu": "relu", "gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "swish": "swish",
  "silu": "swish",
}  # fmt: skip
FORBIDDEN = -1e4  # the bias of a token that must not come: no logit makes up for it, and sums stay finite


class Imported(NamedTuple):
  """config: what a run's config.json holds. params: of its model. tokenizer: content of tokenizer.model.
  origin: what it was made of, for the card."""

  config: dict
  params: dict
  tokenizer: bytes
  origin: str


class Folder:
  """A folder that was found to be harmless to open. Raises UserError for one that is not, or of another framework."""

  def __init__(self, path):
    self.path = files.expand(path)
    if not files.is_local(path):
      raise UserError(f"{path}: copy it to a local disk first")
    refuse_others(self.path)
    real = pathlib.Path(os.path.realpath(self.path))
    # In Hugging Face's cache, .../snapshots/REVISION is links to .../blobs.
    untrusted.check_folder(self.path, real.parents[1] / "blobs" if real.parent.name == "snapshots" else None)
    self.config = self.json("config.json")
    self._files = self._find()
    self.shapes = {}  # of every array, as the files declare them
    for name in sorted(set(self._files)):
      self._open(name)

  # Small files

  def bytes(self, name) -> bytes:
    if not (self.path / name).is_file():
      raise UserError(f"{self.path} has no {name}")
    return files.read_bytes(self.path / name, MOST_BYTES)

  def json(self, name, default=None) -> dict:
    """A JSON object; `default` where there is no such file and one is given."""
    if default is not None and not (self.path / name).is_file():
      return default
    value = files.parse_json(self.bytes(name), self.path / name)
    if not isinstance(value, dict):
      raise UserError(f"{self.path / name} is not a JSON object")
    return value

  def size(self, name, default=None, low=1, most=MOST) -> int:
    """A whole number of config.json, within bounds."""
    value = self.config.get(name)
    value = default if value is None else value
    if type(value) is not int or not low <= value <= most:
      bounds = f"from {low} to {most:,}"
      raise UserError(f"{self.path}/config.json: {name} must be a whole number {bounds}, not {value!r:.60}")
    return value

  def number(self, name, default, low=0.0, high=1.0) -> float:
    value = self.config.get(name, default)
    value = default if value is None else value
    if type(value) not in (int, float) or not low <= value <= high:  # NaN is not, either
      raise UserError(f"{self.path}/config.json: {name} must be a number from {low} to {high}, not {value!r:.60}")
    return float(value)

  def activation(self, default, name="activation_function") -> str:
    """What config.json's activation is called here. name: of its field."""
    value = self.config.get(name, default)
    if not isinstance(value, str) or value not in ACTIVATIONS:
      raise UserError(f"{self.path}: {name} = {value!r:.60} is not one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[value]

  def origin(self, kind) -> str:
    """What the card says the model was made of: its name where config.json has one, else the folder's."""
    name = self.config.get("_name_or_path")
    good = isinstance(name, str) and re.fullmatch(r"[\w.-]{1,100}(/[\w.-]{1,100})?", name)
    return f"{name if good else self.path.name}, a {kind} folder of transformers"

  def wanted(self, **fields) -> None:
    """Raises UserError unless config.json has these values, or says nothing."""
    for name, value in fields.items():
      if self.config.get(name, value) not in (value, None):
        raise UserError(f"{self.path}/config.json: {name} = {self.config[name]!r:.60} cannot be computed here")

  # Arrays

  def _find(self) -> list[str]:
    """The names of the files with parameters."""
    if (self.path / PARAMETERS).is_file():
      return [PARAMETERS]
    if not (self.path / INDEX).is_file():
      raise UserError(f"{self.path} has neither {PARAMETERS} nor {INDEX}")
    places = self.json(INDEX).get("weight_map")
    if not isinstance(places, dict) or not places:
      raise UserError(f"{self.path / INDEX} has no weight_map")
    for name in places.values():
      if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,200}\.safetensors", name):
        raise UserError(f"{self.path / INDEX} names {name!r:.80}, which is not a file of safetensors in this folder")
      if not (self.path / name).is_file():
        raise UserError(f"{self.path} has no {name}, which {INDEX} names")
    return sorted(set(places.values()))

  def _open(self, name):
    """Notes what a file declares. safetensors itself refuses declarations that are not of the file's very bytes."""
    file = self.path / name
    size, taken = os.stat(file).st_size, os.stat(file).st_blocks * 512
    if untrusted.UNPACKED * taken + (1 << 20) < size:  # some disks pack what they hold
      raise UserError(f"{file} has {size:,} bytes, of which the disk holds {taken:,}: copy it once more")
    with safetensors_file.refused(file), safetensors.safe_open(os.fspath(file), "numpy") as arrays:
      for key in arrays.keys():
        if key in self.shapes:
          raise UserError(f"{self.path} has the array {key:.80} twice")
        found = arrays.get_slice(key)
        self.shapes[key] = name, tuple(found.get_shape()), found.get_dtype()

  def check(self, expected, optional=()) -> None:
    """Raises UserError unless the folder has exactly the arrays {name: shape}. optional: names that may be missing, or
    functions that say of a name whether it may be there besides."""
    for name, (_, shape, dtype) in sorted(self.shapes.items()):
      if name not in expected:
        if not any(callable(may) and may(name) for may in optional):
          raise UserError(f"{self.path} has the array {name:.80}, which config.json's model has not")
        continue
      if shape != expected[name]:
        raise UserError(f"{self.path}: the array {name} has shape {shape}, but config.json says {expected[name]}")
      if dtype not in TYPES:
        raise UserError(f"{self.path}: the array {name} is of type {dtype}; wanted is one of {', '.join(TYPES)}")
    for name in expected:
      if name not in self.shapes and name not in optional:
        raise UserError(f"{self.path} lacks the array {name} of config.json's model")

  def arrays(self, names) -> dict[str, np.ndarray]:
    """float32 arrays of these names, which `check` has found to be right. Raises UserError where one is not finite."""
    found = {}
    for file in self._files:
      path = self.path / file
      with safetensors_file.refused(path), safetensors.safe_open(os.fspath(path), "numpy") as at:
        for name in names:
          if name in self.shapes and self.shapes[name][0] == file:
            found[name] = at.get_tensor(name).astype(np.float32)
    for name, value in found.items():
      if not np.isfinite(value).all():
        raise UserError(f"{self.path}: the array {name} has values that are not finite")
    return found

  def id(self, name, size, default=None):
    """A token's id in config.json, or None."""
    value = self.config.get(name, default)
    if isinstance(value, list) and len(value) == 1:
      value = value[0]
    if value is not None and (type(value) is not int or not 0 <= value < size):
      raise UserError(f"{self.path}/config.json: {name} = {value!r:.60} is not an id below {size}")
    return value


def pieces_of(vocabulary, size, name) -> list[str]:
  """The piece of each id below `size`, of {piece: id}; ids without a piece get one. Raises UserError for other ids."""
  pieces = [None] * size
  for piece, i in vocabulary.items():
    if type(i) is not int or not 0 <= i < size:
      raise UserError(f"{name}: {piece!r:.60} has the id {i!r:.30}, but config.json's vocab_size is {size}")
    if pieces[i] is not None:
      raise UserError(f"{name}: {piece!r:.60} and {pieces[i]!r:.60} have the same id {i}")
    pieces[i] = piece
  found = [f"<unused {i}>" if piece is None else piece for i, piece in enumerate(pieces)]
  check_pieces(found, name)
  return found


class Rows(NamedTuple):
  """A vocabulary here, of another one: special ids first. ids: the row there of each row here, -1 for none.
  forbidden: of each row here, whether it is none of the other model's tokens, and must not come out."""

  ids: np.ndarray
  forbidden: np.ndarray

  def take(self, table):
    return np.where((self.ids >= 0).reshape(-1, *(1,) * (table.ndim - 1)), table[self.ids], 0).astype(np.float32)

  def pieces(self, pieces) -> list[str]:
    """The piece of each row. The beginning and padding have names of their own, and so has what is new."""
    found = [pieces[their] for their in self.ids]
    new = [i for i in SPECIAL if i in (PAD, BOS) or self.forbidden[i]]
    taken = {piece for i, piece in enumerate(found) if i not in new}
    for i in new:
      found[i] = SPECIAL[i]
      while found[i] in taken:
        found[i] = f"<{found[i]}>"
      taken.add(found[i])
    return found


SPECIAL = {PAD: "<pad>", BOS: "<s>", EOS: "</s>", UNK: "<unk>"}


def rows(size, *, begin, end, unknown=None, pad=None) -> Rows:
  """The rows of a vocabulary whose model feeds `begin` first. One id may have several parts there: the end of a text
  is also its beginning in GPT-2, and Marian begins with padding. It is one token then, and other rows are copies."""
  ids, forbidden, used = {}, {}, set()
  for special, their in ((EOS, end), (UNK, unknown), (BOS, begin), (PAD, pad)):
    ids[special] = -1 if their is None else their
    forbidden[special] = their is None or their in used
    used.add(their)
  others = [i for i in range(size) if i not in used]
  special = [PAD, BOS, EOS, UNK]
  new = [*(forbidden[i] for i in special), *[False] * len(others)]
  return Rows(np.array([*(ids[i] for i in special), *others]), np.array(new))


def affine(weight, bias, shape, letters, num_inputs=1) -> dict:
  """The parameters of a `layers.linear.Linear`. weight: [in, out]; letters: of the kernel of that shape."""
  kernel = np.ascontiguousarray(weight.reshape(shape))
  return {f"kernel_{letters}": kernel, f"bias_{letters[num_inputs:]}": bias.reshape(shape[num_inputs:])}


def attention(found, d_model, num_heads) -> dict:
  """The parameters of an attention. found: {"query", "key", "value", "output": (weight [in, out], bias)}."""
  d_k = d_model // num_heads
  inward, outward = (d_model, num_heads, d_k), (num_heads, d_k, d_model)
  letters = {"query": "DNK", "key": "DNK", "value": "DNH"}
  params = {name: affine(*found[name], inward, letters[name]) for name in letters}
  return params | {"output": affine(*found["output"], outward, "NHD", num_inputs=2)}


def feed_forward(wi, wo) -> dict:
  return {"wi": affine(*wi, wi[0].shape, "DF"), "wo": affine(*wo, wo[0].shape, "FD")}


# What other frameworks write


def refuse_others(path) -> None:
  """Raises UserError where this is no folder, or one with nothing that can be read without running it."""
  if path.is_file():
    raise UserError(f"{path}: {_other(path.name, path) or 'name the folder, not a file in it'}")
  if not path.is_dir():
    raise UserError(f"{path} is not a folder")
  if (path / PARAMETERS).is_file() or (path / INDEX).is_file():
    return
  for name in sorted(os.listdir(path))[:1000]:
    if reason := _other(name, path):
      raise UserError(f"{path}/{name}: {reason}")


def _other(name, path) -> str:
  if re.fullmatch(r"pytorch_model.*\.bin(\.index\.json)?", name):
    return (
      "a pickle, which can run any program when it is opened, is not read here. Where you trust it, make safetensors "
      "of it: python -c 'import transformers as t; "
      't.AutoModelForSeq2SeqLM.from_pretrained("FOLDER").save_pretrained("NEW")\' (AutoModelForCausalLM for a GPT-2), '
      "and put the vocabulary's files beside it"
    )
  if name.endswith((".pt", ".pth", ".ckpt")):
    return (
      "fairseq's and PyTorch's checkpoints are pickles, which can run any program when they are opened: they are not "
      "read here. Where you trust it, open it with its own framework, bring it into a class of transformers, and save "
      "that with save_pretrained"
    )
  if name == "checkpoint" or re.search(r"\.(data-\d{5}-of-\d{5}|meta|h5|pb)$", name) or name == "model.ckpt.index":
    return (
      "TensorFlow's checkpoints (tensor2tensor's among them) need TensorFlow, which is not used here: read it with "
      "tf.train.load_checkpoint there, and bring the arrays into a class of transformers, saved with save_pretrained"
    )
  if name.endswith(".npz"):
    return (
      "Marian's own files are not read: transformers' script convert_marian_to_pytorch.py makes a folder of them, and "
      "save_pretrained one with safetensors"
    )
  return ""
