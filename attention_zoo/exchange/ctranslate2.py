"""Folders for CTranslate2, which translates on CPUs and GPUs from C++: https://opennmt.net/CTranslate2.

Written with its own classes (`pip install ctranslate2`), without torch. The same tokens come out, greedily and by beam
search, where its length penalty is off (its own is (length)^alpha, not Wu's ((5 + length) / 6)^alpha).
"""

import jax
import numpy as np

from attention_zoo import files
from attention_zoo.data import joint_pieces
from attention_zoo.data.tokenizer import BOS, EOS, UNK
from attention_zoo.errors import UserError
from attention_zoo.exchange import card, needs
from attention_zoo.exchange.folder import write_sums
from attention_zoo.layers.positions import sinusoidal

TYPES = {"float32": None, "bfloat16": "bfloat16", "int8": "int8"}


def check(dtype) -> None:
  """Raises UserError where CTranslate2 is not installed: told before a large run is read."""
  try:
    import ctranslate2  # noqa: F401
  except ImportError as error:
    raise UserError(f"to write for CTranslate2, install it: pip install ctranslate2 ({error})") from error


def write(run, to, dtype="float32") -> None:
  """Writes a loaded translation run to the new folder `to`. dtype: float32, bfloat16 or int8 (its quantization).

  Raises UserError for a model that CTranslate2 does not compute, naming the field, and where it is not installed.
  """
  spec = specification(run)
  spec.validate()
  spec.optimize(quantization=TYPES[dtype])
  with files.new_folder(to) as folder:
    spec.save(str(folder))
    models = _models(run)
    for name, content in models.items():
      files.write_bytes(folder / name, content)
    files.write_text(folder / "README.md", _text(run, dtype, [*models]))
    write_sums(folder)


def specification(run):
  """A ctranslate2.specs.TransformerSpec."""
  check(None)
  from ctranslate2 import specs

  needs.check_transformer(
    run, "CTranslate2", "transformer", residual=("post", "pre"), positions=("sinusoidal", "learned"),
    encoder_attention="dot_product", decoder_attention="dot_product",
  )  # fmt: skip
  c, params = run.task.model_config, jax.tree.map(np.array, run.params)  # quantization writes where they lie
  activation = {
    "relu": specs.Activation.RELU, "gelu": specs.Activation.GELU, "gelu_tanh": specs.Activation.GELUTanh,
    "swish": specs.Activation.SWISH,
  }  # fmt: skip
  spec = specs.TransformerSpec.from_config(
    (c.num_encoder_layers, c.num_decoder_layers), c.num_heads, pre_norm=c.residual == "pre",
    activation=activation[c.activation],
  )  # fmt: skip
  table = params["embedding"]["table_VD"]
  longest = max(c.max_length, run.config.data.max_length + run.config.decode.extra_length + 1)
  for side, name in ((spec.encoder, "encoder"), (spec.decoder, "decoder")):
    embeddings = side.embeddings[0] if name == "encoder" else side.embeddings
    embeddings.weight = table
    side.scale_embeddings = c.scale_embedding
    if c.positions == "sinusoidal":
      side.position_encodings.encodings = np.asarray(sinusoidal(np.arange(longest, dtype=np.int32), c.d_model))
    else:
      where = {"encoder": "source_positions", "decoder": "target_positions"}[name]
      side.position_encodings.encodings = params[where]["table_TD"]
    if c.residual == "pre":
      _norm(side.layer_norm, params[name]["norm"])
    for i, layer in enumerate(side.layer):
      _layer(layer, params[name][f"layer_{i}"], c.d_model)
  spec.decoder.projection.weight = table
  if c.output_bias:
    spec.decoder.projection.bias = params["output_bias_V"]
  pieces = run.task.tokenizer.pieces(range(c.vocab_size))
  spec.register_source_vocabulary(pieces)
  spec.register_target_vocabulary(pieces)
  spec.config.bos_token = spec.config.decoder_start_token = pieces[BOS]
  spec.config.eos_token, spec.config.unk_token = pieces[EOS], pieces[UNK]
  spec.config.add_source_eos, spec.config.layer_norm_epsilon = True, c.norm_epsilon
  return spec


def _models(run) -> dict[str, bytes]:
  """{name: content} of SentencePiece's files: one, or one for each language."""
  path = files.expand(run.task.workdir) / "tokenizer.model"
  content = path.read_bytes()
  joint = joint_pieces.read(content, path)
  return {"source.spm": joint[1], "target.spm": joint[2]} if joint else {"tokenizer.model": content}


def _layer(spec, layer, d_model):
  names = [("self_attention", spec.self_attention)]
  if "cross_attention" in layer:
    names.append(("cross_attention", spec.attention))
  for name, place in names:
    found = needs.attention(layer[name], d_model)
    joined = [("query", "key", "value")] if name == "self_attention" else [("query",), ("key", "value")]
    for linear, parts in zip(place.linear, [*joined, ("output",)], strict=True):
      linear.weight, linear.bias = (np.concatenate([found[part][j] for part in parts]) for j in (0, 1))
    _norm(place.layer_norm, layer[f"{name}_norm"])
  wi, wo = layer["feed_forward"]["wi"], layer["feed_forward"]["wo"]
  spec.ffn.linear_0.weight, spec.ffn.linear_0.bias = np.ascontiguousarray(wi["kernel_DF"].T), wi["bias_F"]
  spec.ffn.linear_1.weight, spec.ffn.linear_1.bias = np.ascontiguousarray(wo["kernel_FD"].T), wo["bias_D"]
  _norm(spec.ffn.layer_norm, layer["feed_forward_norm"])


def _norm(spec, values):
  spec.gamma, spec.beta = values["scale"], values["bias"]


def _text(run, dtype, models):
  c = run.config
  return f"""# {c.model.name}, for CTranslate2

{card.made(run)} Stored as {dtype}.

```python
import ctranslate2, sentencepiece
source, target = (sentencepiece.SentencePieceProcessor(model_file=f"FOLDER/{{x}}") for x in {(models * 2)[:2]})
translator = ctranslate2.Translator("FOLDER")
found = translator.translate_batch(
    [source.encode("...", out_type=str)], beam_size={c.decode.beam_size}, length_penalty={c.decode.alpha:g},
    max_decoding_length={c.data.max_length + c.decode.extra_length},
)
print(target.decode(found[0].hypotheses[0]))
```

Its length penalty is length^{c.decode.alpha:g}, where the run's is ((5 + length) / 6)^{c.decode.alpha:g}: with the
exponent 0 the translations are the same.
"""
