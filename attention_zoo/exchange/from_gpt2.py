"""GPT-2 folders of transformers as a Transformer language model of this package.

| what | there | here |
|---|---|---|
| begin and end of a text | one token, <\\|endoftext\\|> | two rows, <s> and the end, which begin as copies |
| padding, <s> and <unk> | none | rows with a bias of -10,000: they do not come out |
| vocabulary | vocab.json and merges.txt, or tokenizer.json | `data/byte_bpe.py` |
"""

import numpy as np

from attention_zoo.data import byte_bpe
from attention_zoo.errors import UserError
from attention_zoo.exchange import reading, settings

PREFIX = "transformer."
OUTPUT = "lm_head.weight"


def read(folder: reading.Folder) -> reading.Imported:
  """The model of a folder whose config.json says "gpt2".

  Raises UserError for a model that is computed in another way, and for a folder that is not in order.
  """
  folder.wanted(scale_attn_weights=True, scale_attn_by_inverse_layer_idx=False, add_cross_attention=False)
  V, D, N = folder.size("vocab_size", low=4), folder.size("n_embd"), folder.size("n_head")
  F, L = folder.size("n_inner", 4 * D), folder.size("n_layer", most=reading.MOST_LAYERS)
  Z = folder.size("n_positions", low=2)
  epsilon = folder.number("layer_norm_epsilon", 1e-5)
  dropout, attention_dropout = folder.number("resid_pdrop", 0.1), folder.number("attn_pdrop", 0.1)
  activation = folder.activation("gelu_new")
  if D % N:
    raise UserError(f"{folder.path}: n_embd = {D} is not a multiple of {N} heads")
  prefix = PREFIX if f"{PREFIX}wte.weight" in folder.shapes else ""  # the published files have none
  expected = {f"{prefix}{name}": shape for name, shape in _shapes(V, D, F, L, Z).items()} | {OUTPUT: (V, D)}
  folder.check(expected, optional=(OUTPUT, lambda name: name.endswith((".attn.bias", ".attn.masked_bias"))))

  end = folder.id("eos_token_id", V)
  if end is None:
    raise UserError(f"{folder.path}/config.json names no eos_token_id")
  begin = folder.id("bos_token_id", V)
  rows = reading.rows(V, begin=end if begin is None else begin, end=end)
  pieces, merges = vocabulary(folder, V)
  pieces = rows.pieces(pieces)
  params, tied = _params(folder, expected, prefix, D, N, L, rows)
  config = settings.config(
    "language_modeling",
    {
      "name": "transformer_lm", "d_model": D, "d_ff": F, "num_heads": N, "d_k": D // N, "d_v": D // N, "num_layers": L,
      "dropout": dropout, "attention_dropout": attention_dropout, "residual": "pre", "norm_epsilon": epsilon,
      "bias": True, "attention": "dot_product", "activation": activation, "output_bias": True,
      "scale_embedding": False, "positions": "learned", "max_length": Z, "tied": tied,
    },
    {"vocab_size": len(pieces), "tokenizer": "bpe", "batching": "windows", "row_length": Z},
    {
      "max_tokens": min(256, Z // 2), "temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0,
      "repetition_penalty": 1.0, "batch_tokens": max(8192, Z),
    },
  )  # fmt: skip
  return reading.Imported(config, params, byte_bpe.dump(pieces, merges), folder.origin("GPT-2"))


def _shapes(V, D, F, L, Z) -> dict:
  shapes = {"wte.weight": (V, D), "wpe.weight": (Z, D), "ln_f.weight": (D,), "ln_f.bias": (D,)}
  for i in range(L):
    for name, (inward, outward) in {
      "attn.c_attn": (D, 3 * D), "attn.c_proj": (D, D), "mlp.c_fc": (D, F), "mlp.c_proj": (F, D)
    }.items():  # fmt: skip
      shapes[f"h.{i}.{name}.weight"], shapes[f"h.{i}.{name}.bias"] = (inward, outward), (outward,)
    for name in ("ln_1", "ln_2"):
      shapes[f"h.{i}.{name}.weight"] = shapes[f"h.{i}.{name}.bias"] = (D,)
  return shapes


def _params(folder, expected, prefix, D, N, L, rows) -> tuple[dict, bool]:
  """(parameters, whether the output has the embedding's table)."""
  found = folder.arrays([f"{prefix}{name}" for name in ("wte.weight", "wpe.weight", "ln_f.weight", "ln_f.bias")])
  of = lambda name: found[f"{prefix}{name}"]
  bias_V = np.where(rows.forbidden, np.float32(reading.FORBIDDEN), np.float32(0))
  params = {
    "embedding": {"table_VD": rows.take(of("wte.weight"))}, "positions": {"table_TD": of("wpe.weight")},
    "output_bias_V": bias_V, "decoder": {"norm": {"scale": of("ln_f.weight"), "bias": of("ln_f.bias")}},
  }  # fmt: skip
  output = folder.arrays([OUTPUT]).get(OUTPUT)
  tied = output is None or bool((output == of("wte.weight")).all())
  if not tied and folder.config.get("tie_word_embeddings", True):
    raise UserError(f"{folder.path}: {OUTPUT} is not the embedding, but config.json says that they are tied")
  if output is None and folder.config.get("tie_word_embeddings") is False:
    raise UserError(f"{folder.path} lacks {OUTPUT}, which config.json says is not the embedding")
  if not tied:
    params["output"] = {"table_VD": rows.take(output)}
  for i in range(L):
    at = f"{prefix}h.{i}."
    layer = folder.arrays([name for name in folder.shapes if name.startswith(at) and name in expected])
    layer = {name: layer[at + name] for name in (key.removeprefix(at) for key in layer)}
    affine = lambda name: (layer[f"{name}.weight"], layer[f"{name}.bias"])
    norm = lambda name: {"scale": layer[f"{name}.weight"], "bias": layer[f"{name}.bias"]}
    weight, bias = affine("attn.c_attn")
    parts = zip(np.split(weight, 3, axis=1), np.split(bias, 3), strict=True)
    linears = dict(zip(("query", "key", "value"), parts, strict=True)) | {"output": affine("attn.c_proj")}
    params["decoder"][f"layer_{i}"] = {
      "self_attention": reading.attention(linears, D, N), "self_attention_norm": norm("ln_1"),
      "feed_forward": reading.feed_forward(affine("mlp.c_fc"), affine("mlp.c_proj")),
      "feed_forward_norm": norm("ln_2"),
    }  # fmt: skip
  return params, tied


def vocabulary(folder, V) -> tuple[list[str], list[tuple[str, str]]]:
  """(the piece of each id, the merges), of vocab.json and merges.txt or of tokenizer.json."""
  if (folder.path / "vocab.json").is_file() and (folder.path / "merges.txt").is_file():
    name, pieces = "vocab.json", folder.json("vocab.json")
    text = folder.bytes("merges.txt").decode(errors="replace")
    lines = [line for line in text.split("\n") if line and not line.startswith("#version")]
    merges = [line.rstrip("\r").split(" ") for line in lines]
  else:
    name, said = "tokenizer.json", folder.json("tokenizer.json")
    model = said.get("model")
    if not isinstance(model, dict) or model.get("type") != "BPE" or not isinstance(model.get("vocab"), dict):
      raise UserError(f"{folder.path}/tokenizer.json is not byte-level BPE")
    cut = said.get("pre_tokenizer")
    as_published = isinstance(cut, dict) and cut.get("type") == "ByteLevel" and cut.get("use_regex") in (None, True)
    if not as_published or cut.get("add_prefix_space") or said.get("normalizer") or model.get("ignore_merges"):
      raise UserError(f"{folder.path}/tokenizer.json does not cut texts as GPT-2 does")
    pieces, merges = dict(model["vocab"]), model.get("merges")
    added = said.get("added_tokens")
    for token in added if isinstance(added, list) else ():
      if isinstance(token, dict) and isinstance(token.get("content"), str):
        pieces[token["content"]] = token.get("id")
    merges = merges if isinstance(merges, list) else []
    merges = [pair.split(" ") if isinstance(pair, str) else pair for pair in merges]
  if folder.json("tokenizer_config.json", {}).get("add_prefix_space"):
    raise UserError(f"{folder.path}/tokenizer_config.json puts a space before each text (add_prefix_space)")
  if len(merges) > V:
    raise UserError(f"{folder.path} has {len(merges):,} merges, more than config.json's vocab_size = {V:,}")
  return reading.pieces_of(pieces, V, folder.path / name), byte_bpe.check_merges(merges, folder.path / name)
