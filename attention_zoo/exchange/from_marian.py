"""MarianMT folders of transformers, which OPUS-MT's published models are, as a Transformer of this package.

| what | there | here |
|---|---|---|
| sines and cosines of positions | all sines, then all cosines | they take turns: d_model is reordered throughout |
| token that begins a translation | the one of padding | a row of its own, <s>; a copy |
| tokens that must not come | generation_config's bad_words_ids | the bias of their logits is -10,000 |
| two SentencePiece models, one vocab.json | ids by vocab.json | `data/joint_pieces.py` |
| scores of a beam search | sum / length^length_penalty | Wu et al.'s penalty, alpha = length_penalty |

What the softmax gives to forbidden tokens there, it gives to the others here, as with renormalize_logits=True.
"""

import re

import numpy as np

from attention_zoo.data import joint_pieces
from attention_zoo.errors import UserError
from attention_zoo.exchange import reading, settings
from attention_zoo.exchange.huggingface import reordered

SHARED = (
  "model.shared.weight", "model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight", "lm_head.weight",
)  # fmt: skip
POSITIONS = ("model.encoder.embed_positions.weight", "model.decoder.embed_positions.weight")
BIAS = "final_logits_bias"
LONGEST = 512  # tokens of a sentence, where config.json allows as many


def read(folder: reading.Folder, languages=None) -> reading.Imported:
  """The model of a folder whose config.json says "marian". languages: (source, target), if not tokenizer_config.json's.

  Raises UserError for a model that is computed in another way, and for a folder that is not in order.
  """
  folder.wanted(
    static_position_embeddings=True, share_encoder_decoder_embeddings=True, tie_word_embeddings=True,
    add_final_layer_norm=False, normalize_before=False, normalize_embedding=False, is_encoder_decoder=True,
  )  # fmt: skip
  V, D, F = folder.size("vocab_size", low=4), folder.size("d_model"), folder.size("encoder_ffn_dim")
  N = folder.size("encoder_attention_heads")
  number = {side: folder.size(f"{side}_layers", most=reading.MOST_LAYERS) for side in ("encoder", "decoder")}
  folder.wanted(decoder_vocab_size=V, decoder_ffn_dim=F, decoder_attention_heads=N)
  activation = folder.activation("gelu")
  if D % N or D % 2:
    raise UserError(f"{folder.path}: d_model = {D} is not a multiple of 2 and of {N} heads")
  dropout, attention_dropout = folder.number("dropout", 0.1), folder.number("attention_dropout", 0.0)
  longest = min(LONGEST, folder.size("max_position_embeddings", LONGEST, low=2))

  expected = _shapes(V, D, F, number)
  folder.check(expected | dict.fromkeys(SHARED, (V, D)), optional=(*SHARED, BIAS, POSITIONS.__contains__))
  rows, bad = _rows(folder, V), _bad_words(folder)
  pieces, tokenizer = _tokenizer(folder, V, rows)
  table_VD, bias_V = _table(folder), _bias(folder, V, rows, bad)
  params = _params(folder, D, N, number) | {"embedding": {"table_VD": rows.take(table_VD)}}
  if biased := bool(bias_V.any()):
    params["output_bias_V"] = bias_V
  config = settings.config(
    "translation",
    {
      "name": "transformer", "d_model": D, "d_ff": F, "num_heads": N, "d_k": D // N, "d_v": D // N,
      "num_encoder_layers": number["encoder"], "num_decoder_layers": number["decoder"],
      "dropout": dropout, "attention_dropout": attention_dropout,
      "residual": "post", "norm_epsilon": 1e-5, "bias": True, "encoder_attention": "dot_product",
      "decoder_attention": "dot_product", "activation": activation, "output_bias": biased,
      "scale_embedding": folder.config.get("scale_embedding") is True, "positions": "sinusoidal",
      "max_length": max(longest, 1024),
    },
    {
      "languages": languages or _languages(folder), "tokenized": False, "vocab_size": len(pieces),
      "tokenizer": "unigram", "subword_sampling": 0.0, "batching": "packed", "row_length": 2 * longest,
      "max_length": longest, "too_long": "truncate",
    },
    _decode(folder),
  )  # fmt: skip
  params = reordered(params, np.argsort(np.r_[0:D:2, 1:D:2]))
  return reading.Imported(config, params, tokenizer, folder.origin("MarianMT"))


def _shapes(V, D, F, number) -> dict:
  shapes = {BIAS: (1, V)}
  for side, layers in number.items():
    for i in range(layers):
      at = f"model.{side}.layers.{i}"
      for name in ("self_attn", "encoder_attn")[: 1 + (side == "decoder")]:
        for part in "qkv":
          shapes[f"{at}.{name}.{part}_proj.weight"], shapes[f"{at}.{name}.{part}_proj.bias"] = (D, D), (D,)
        shapes[f"{at}.{name}.out_proj.weight"], shapes[f"{at}.{name}.out_proj.bias"] = (D, D), (D,)
        shapes[f"{at}.{name}_layer_norm.weight"] = shapes[f"{at}.{name}_layer_norm.bias"] = (D,)
      shapes[f"{at}.fc1.weight"], shapes[f"{at}.fc1.bias"] = (F, D), (F,)
      shapes[f"{at}.fc2.weight"], shapes[f"{at}.fc2.bias"] = (D, F), (D,)
      shapes[f"{at}.final_layer_norm.weight"] = shapes[f"{at}.final_layer_norm.bias"] = (D,)
  return shapes


def _rows(folder, V):
  pad = folder.id("pad_token_id", V)
  begin = folder.id("decoder_start_token_id", V, pad)
  end = folder.id("eos_token_id", V, 0)
  unknown = folder.json("vocab.json").get(_special(folder, "unk_token", "<unk>"))
  if begin is None or end is None or type(unknown) is not int or not 0 <= unknown < V:
    raise UserError(f"{folder.path} names no tokens that begin and end a translation, or none for the unknown")
  return reading.rows(V, begin=begin, end=end, unknown=unknown, pad=pad)


def _special(folder, name, default) -> str:
  said = folder.json("tokenizer_config.json", {}).get(name, default)
  said = said.get("content") if isinstance(said, dict) else said
  return said if isinstance(said, str) else default


def _table(folder):
  """The embedding, which may stand there under several names."""
  found = [*folder.arrays(SHARED).values()]
  if not found or any((other != found[0]).any() for other in found[1:]):
    raise UserError(f"{folder.path} has {len(found)} embeddings: one is needed that source, target and output share")
  D = found[0].shape[1]
  for name in POSITIONS:
    if name in folder.shapes:
      _, shape, dtype = folder.shapes[name]
      if len(shape) != 2 or shape[1] != D or shape[0] > reading.MOST or dtype not in reading.TYPES:
        raise UserError(f"{folder.path}: the array {name} has shape {shape} and type {dtype}")
      angle = np.arange(shape[0])[:, None] / 10000 ** (np.arange(0, D, 2) / D)
      signal = np.concatenate([np.sin(angle), np.cos(angle)], 1)
      if not np.allclose(folder.arrays([name])[name], signal, atol=1e-2):  # bfloat16 is not closer
        raise UserError(f"{folder.path}: {name} are not the sines and cosines of positions")
  return found[0]


def _bias(folder, V, rows, bad):
  bias_V = rows.take(folder.arrays([BIAS]).get(BIAS, np.zeros((1, V), np.float32))[0])
  return np.where(rows.forbidden | np.isin(rows.ids, bad), reading.FORBIDDEN, bias_V)


def _bad_words(folder) -> list[int]:
  said = folder.config | folder.json("generation_config.json", {})
  if said.get("forced_bos_token_id") is not None:
    raise UserError(
      f"{folder.path} forces the first token of each translation (forced_bos_token_id), which the search does not do: "
      "set it to null in config.json and generation_config.json to import the model without it"
    )
  bad = said.get("bad_words_ids") or []
  if not isinstance(bad, list) or not all(isinstance(ids, list) and len(ids) == 1 for ids in bad):
    raise UserError(
      f"{folder.path} forbids words of several tokens (bad_words_ids), but the search leaves out single tokens only: "
      "take them out of config.json and generation_config.json to import the model without them"
    )
  return [i for (i,) in bad if type(i) is int and i >= 0]


def _params(folder, D, N, number) -> dict:
  params = {}
  for side, layers in number.items():
    params[side] = {}
    for i in range(layers):
      at = f"model.{side}.layers.{i}."
      found = folder.arrays([name for name in folder.shapes if name.startswith(at)])
      affine = lambda name: (found[f"{at}{name}.weight"].T, found[f"{at}{name}.bias"])
      norm = lambda name: {"scale": found[f"{at}{name}.weight"], "bias": found[f"{at}{name}.bias"]}
      layer = params[side][f"layer_{i}"] = {}
      for ours, theirs in (("self_attention", "self_attn"), ("cross_attention", "encoder_attn")):
        if f"{at}{theirs}.q_proj.weight" in found:
          parts = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "output": "out_proj"}
          linears = {name: affine(f"{theirs}.{part}") for name, part in parts.items()}
          layer[ours], layer[f"{ours}_norm"] = reading.attention(linears, D, N), norm(f"{theirs}_layer_norm")
      layer["feed_forward"] = reading.feed_forward(affine("fc1"), affine("fc2"))
      layer["feed_forward_norm"] = norm("final_layer_norm")
  return params


def _tokenizer(folder, V, rows) -> tuple[list[str], bytes]:
  """(the piece of each id, content of tokenizer.model)."""
  if folder.json("tokenizer_config.json", {}).get("separate_vocabs"):
    raise UserError(f"{folder.path} has a vocabulary for each language (separate_vocabs): one for both is needed")
  pieces = rows.pieces(reading.pieces_of(folder.json("vocab.json"), V, folder.path / "vocab.json"))
  source, target = folder.bytes("source.spm"), folder.bytes("target.spm")
  models = [joint_pieces.open_model(*found) for found in ((source, "source.spm"), (target, "target.spm"))]
  if source == target and pieces == [models[0].id_to_piece(i) for i in range(models[0].get_piece_size())]:
    if [getattr(models[0], f"{name}_id")() for name in ("pad", "bos", "eos", "unk")] == [*range(4)]:
      return pieces, source  # it is one of ours
  return pieces, joint_pieces.dump(pieces, source, target)


def _languages(folder) -> tuple[str, str]:
  said = folder.json("tokenizer_config.json", {})
  found = tuple(said.get(name) for name in ("source_lang", "target_lang"))
  good = all(isinstance(name, str) and re.fullmatch("[A-Za-z][A-Za-z0-9_-]{0,30}", name) for name in found)
  return found if good and found[0] != found[1] else ("source", "target")


def _decode(folder) -> dict:
  said = folder.config | folder.json("generation_config.json", {})
  beams, alpha = said.get("num_beams", 4), said.get("length_penalty", 1.0)
  beams = beams if type(beams) is int and 1 <= beams <= 128 else 4
  alpha = float(alpha) if type(alpha) in (int, float) and -10 <= alpha <= 10 else 1.0
  return dict(
    beam_size=beams, alpha=alpha, coverage_penalty=0.0, replace_unknown=False, unknown_dictionary="", search="beam",
    extra_length=50, batch_tokens=4096, dev_sentences=0,
  )  # fmt: skip
