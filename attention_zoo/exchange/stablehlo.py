"""Folders for whoever has JAX and not this package: scoring and decoding as serialized StableHLO (`jax.export`).

  score.stablehlo, start.stablehlo, step.stablehlo    what the model computes; its parameters are arguments
  model.safetensors                                   the parameters
  programs.json                                       arguments of each program, their dimensions, the platforms
  tokenizer.model, card.json, README.md, SHA256SUMS   README.md has an example that runs

The dimensions are symbols where the model's code does with any size, else they are fixed: programs.json says which.
"""

import json

import jax
from jax import export

from attention_zoo import files
from attention_zoo.data.tokenizer import BOS, EOS, PAD
from attention_zoo.errors import UserError
from attention_zoo.exchange import card
from attention_zoo.exchange.folder import write_sums
from attention_zoo.training import safetensors_file
from attention_zoo.training.exported import PARAMETERS

PLATFORMS = ("cpu", "cuda", "tpu")
NAMES = ("score", "start", "step")


def check(dtype) -> None:
  """Raises UserError for another type than the programs take, and where what jax.export writes with is not installed.
  """
  if dtype != "float32":
    raise UserError(f"--dtype={dtype}: the programs of --format=stablehlo take float32 parameters")
  try:
    import flatbuffers  # noqa: F401
  except ImportError as error:
    raise UserError("jax.export writes with flatbuffers: pip install 'attention_zoo[stablehlo]'") from error


def write(run, to, dtype="float32") -> None:
  """Writes a loaded run to the new folder `to`. dtype: float32, the type that the programs take.

  Raises UserError for another type, and for a model that cannot be decoded with.
  """
  check(dtype)
  params = jax.device_get(run.params)
  exported, dimensions, platforms = _export(run, params)
  about = card.make(run, dtype)
  programs = {"dimensions": dimensions, "platforms": platforms}
  programs |= {name: [str(aval) for aval in program.in_avals[-count:]] for name, (program, count) in exported.items()}
  with files.new_folder(to) as folder:
    for name, (program, _) in exported.items():
      files.write_bytes(folder / f"{name}.stablehlo", program.serialize())
    files.write_bytes(folder / PARAMETERS, safetensors_file.dump({"params": params}, dtype, {"format": "np"}))
    tokenizer = files.expand(run.task.workdir) / "tokenizer.model"
    if tokenizer.exists():
      files.write_bytes(folder / "tokenizer.model", tokenizer.read_bytes())
    files.write_text(folder / "programs.json", json.dumps(programs, indent=1) + "\n")
    files.write_text(folder / "card.json", json.dumps(about, indent=1, ensure_ascii=False) + "\n")
    use = _use(run, dimensions, tokenizer)
    files.write_text(folder / "README.md", card.text(about, use))
    write_sums(folder)


def _export(run, params):
  """({name: (program, how many of its arrays are no parameters)}, {dimension: size or None}, platforms)."""
  flat = {"/".join(["params", *(key.key for key in path)]): x for path, x in jax.tree.leaves_with_path(params)}
  flat = {name: jax.ShapeDtypeStruct(flat[name].shape, flat[name].dtype) for name in sorted(flat)}
  programs = run.programs()
  free = dict.fromkeys(["b", *programs.sizes])
  problems = []
  for sizes in (free, free | programs.sizes, {"b": 1} | programs.sizes):
    for platforms in (PLATFORMS, *((name,) for name in PLATFORMS)):
      try:
        return _export_as(programs, flat, sizes, platforms), sizes, platforms
      except UserError:
        raise
      except Exception as error:  # shapes that must be known, operations that a platform has not
        problems.append(str(error).strip().partition("\n")[0])
  raise UserError(f"{run.config.model.name} cannot be exported as StableHLO: {problems[-1]}")


def _export_as(programs, flat, sizes, platforms):
  def arrays(shapes):
    dimensions = {name for shape in shapes.values() for name in shape if sizes[name] is None}
    limited = [f"{name} <= {programs.limits[name]}" for name in sorted(dimensions & set(programs.limits))]
    scope = export.SymbolicScope(limited)
    texts = [", ".join(str(sizes[name] or name) for name in shape) for shape in shapes.values()]
    return [jax.ShapeDtypeStruct(export.symbolic_shape(text, scope=scope), "int32") for text in texts]

  def program(function, *arguments):
    named = lambda flat, *arguments: function(_tree(flat), *arguments)
    named.__name__ = function.__name__
    exported = export.export(jax.jit(named, keep_unused=True), platforms=platforms)(flat, *arguments)
    return exported, len(jax.tree.leaves(arguments))

  score, starts = arrays(programs.score_shapes), arrays(programs.start_shapes)
  found = {"score": program(programs.score, *score), "start": program(programs.start, *starts)}
  state = jax.tree.unflatten(found["start"][0].out_tree, found["start"][0].out_avals)
  fixed, cache = jax.tree.map(lambda aval: jax.ShapeDtypeStruct(aval.shape, aval.dtype), state)
  tokens = jax.ShapeDtypeStruct(starts[0].shape[:1], "int32")
  found["step"] = program(programs.step, fixed, cache, tokens, jax.ShapeDtypeStruct((), "int32"))
  return found


def _tree(flat):
  """The nested parameters of {"params/layer/kernel": array}."""
  tree = {}
  for name, value in flat.items():
    branch = tree
    *parts, leaf = name.split("/")[1:]
    for part in parts:
      branch = branch.setdefault(part, {})
    branch[leaf] = value
  return tree


def _use(run, dimensions, tokenizer) -> str:
  """The example of README.md: it reads a text a line, and writes log-probability, ids and text."""
  sentencepiece = tokenizer.exists() and not tokenizer.read_bytes().startswith(b"{")
  pieces, encode, decode = SENTENCEPIECE if sentencepiece else IDS
  words = {
    "pieces": pieces, "encode": encode, "decode": decode, "BOS": BOS, "EOS": EOS, "PAD": PAD,
    "length": f"{dimensions['t']} - len(ids)" if dimensions["t"] else "0",
  }  # fmt: skip
  if run.config.task == "translation":
    return (HEAD + TRANSLATE).format(extra=run.config.decode.extra_length, **words)
  begin = "" if run.config.data.batching == "packed" else f"{encode} or "
  begin = f"[{BOS}, *{encode}]" if run.config.data.batching == "packed" else f"{begin}[{BOS}]"
  return (HEAD + CONTINUE).format(more=MORE, room=dimensions["z"] or f"len(ids) + {MORE}", begin=begin, **words)


MORE = 20  # tokens that the example continues a text with
SENTENCEPIECE = (
  'import sentencepiece\n\npieces = sentencepiece.SentencePieceProcessor(model_file="tokenizer.model")',
  "pieces.encode(text)",
  "pieces.decode(ids)",
)
# Another vocabulary is written in tokenizer.model as JSON.
IDS = "# A line has ids, as tokenizer.model explains them.", "[int(i) for i in text.split()]", '" ".join(map(str, ids))'

HEAD = """# In this folder, with a text a line on standard input.
import sys
import jax, numpy as np, safetensors.numpy
from jax import export
{pieces}
params = safetensors.numpy.load_file("model.safetensors")
load = lambda name: jax.jit(export.deserialize(bytearray(open(f"{{name}}.stablehlo", "rb").read())).call)
score, start, step = load("score"), load("start"), load("step")

def row(ids):  # {BOS} begins a text, {EOS} ends it, {PAD} is padding
  return np.pad(np.int32([ids]), ((0, 0), (0, {length}))), np.int32([len(ids)])
"""

TRANSLATE = """
for text in map(str.strip, sys.stdin):
  source = row([*{encode}, {EOS}])
  fixed, cache = start(params, *source)
  ids = [{BOS}]
  while ids[-1] != {EOS} and len(ids) <= source[1][0] + {extra}:  # the most probable token, one after the other
    logits, cache = step(params, fixed, cache, np.int32(ids[-1:]), np.int32(len(ids) - 1))
    ids.append(int(logits[0].argmax()))
  ids = ids[1:]
  print(float(score(params, *source, *row(ids)).sum()), ids, {decode}, sep="\\t")"""

CONTINUE = """
for text in map(str.strip, sys.stdin):
  ids = {begin}
  fixed, cache = start(params, np.zeros((1, {room}), np.int32))
  for t in range(len(ids) + {more} - 1):  # the text is read, and then the most probable tokens follow
    logits, cache = step(params, fixed, cache, np.int32(ids[t : t + 1]), np.int32(t))
    if t + 1 == len(ids):
      ids.append(int(logits[0].argmax()))
  print(float(score(params, *row([*{encode}, {EOS}])).sum()), ids, {decode}, sep="\\t")"""
