"""XLNet folders of transformers as permutation language models of this package.

| what | there | here |
|---|---|---|
| special tokens | <cls>, <sep>, <pad>, <unk> anywhere | begin, end, padding, unknown: ids 1, 2, 0, 3 |
| their names | perhaps others, in tokenizer_config.json | of no account |
| a text | first <sep> second <sep> <cls> | <cls> first <sep> second <sep> |
| vocabulary | spiece.model, by its own numbers | `data/joint_pieces.py` |
| accents, doubled quotation marks | removed before a text is cut | they stay |
| do_lower_case | perhaps | refused |
| sines and cosines of distances | all sines, then all cosines | they take turns: rows of one map are reordered |
"""

import numpy as np

from attention_zoo.data import joint_pieces
from attention_zoo.errors import UserError
from attention_zoo.exchange import reading, settings

TABLE, OUTPUT, BIAS = "transformer.word_embedding.weight", "lm_loss.weight", "lm_loss.bias"
_LONGEST = 512  # tokens of a row: the model itself has no limit
BIASES = {"content_bias_NK": "r_w_bias", "position_bias_NK": "r_r_bias", "segment_bias_NK": "r_s_bias"}


def read(folder: reading.Folder) -> reading.Imported:
  """The model of a folder whose config.json says "xlnet".

  Raises UserError for a model that is computed in another way, and for a folder that is not in order.
  """
  folder.wanted(attn_type="bi", untie_r=True, clamp_len=-1, same_length=False, bi_data=False)
  V, D, N = folder.size("vocab_size", low=5), folder.size("d_model"), folder.size("n_head")
  F, L = folder.size("d_inner"), folder.size("n_layer", most=reading.MOST_LAYERS)
  if D % N or D % 2:
    raise UserError(f"{folder.path}: d_model = {D} is not a multiple of 2 and of {N} heads")
  K = folder.size("d_head", D // N)
  activation = folder.activation("gelu", "ff_activation")
  expected = _shapes(V, D, N, K, F, L)
  folder.check(expected | {OUTPUT: (V, D)}, optional=(OUTPUT,))
  ids, pieces, tokenizer = _vocabulary(folder, V)
  found = folder.arrays([TABLE, OUTPUT, BIAS, "transformer.mask_emb"])
  if OUTPUT in found and (found[OUTPUT] != found[TABLE]).any():
    raise UserError(f"{folder.path}: {OUTPUT} is not the embedding; only one table for both is read")
  params = {
    "embedding": {"table_VD": found[TABLE][ids]}, "query_D": found["transformer.mask_emb"][0, 0],
    "permutation_head": {"bias_V": found[BIAS][ids]},
  }  # fmt: skip
  order = taking_turns(D)
  for i in range(L):
    params[f"layer_{i}"] = _layer(folder, f"transformer.layer.{i}.", order)
  dropout = folder.number("dropout", 0.1)
  config = settings.config(
    "permutation_language_modeling",
    {
      "name": "xlnet", "d_model": D, "d_ff": F, "num_heads": N, "d_k": K, "num_layers": L, "dropout": dropout,
      "attention_dropout": dropout, "norm_epsilon": folder.number("layer_norm_eps", 1e-12), "activation": activation,
      "memory": folder.size("mem_len", 384, low=0),
    },
    {"vocab_size": len(pieces), "tokenizer": "unigram", "batching": "windows", "row_length": _LONGEST},
    {"batch_tokens": 8192},
  )  # fmt: skip
  config["model"] = {name: value for name, value in config["model"].items() if name not in _NOT_ITS}
  return reading.Imported(config, params, tokenizer, folder.origin("XLNet"))


_NOT_ITS = ("feed_forward", "position_mode", "remat", "scan_layers")  # fields of Transformers that it has not


def taking_turns(D) -> np.ndarray:
  """Which sine or cosine there is each one here."""
  return np.arange(D).reshape(2, D // 2).T.ravel()


def _shapes(V, D, N, K, F, L) -> dict:
  shapes = {TABLE: (V, D), BIAS: (V,), "transformer.mask_emb": (1, 1, D)}
  for i in range(L):
    at = f"transformer.layer.{i}"
    shapes |= {f"{at}.rel_attn.{name}": (D, N, K) for name in "qkvor"}
    shapes |= {f"{at}.rel_attn.{name}": (N, K) for name in BIASES.values()}
    shapes |= {f"{at}.rel_attn.seg_embed": (2, N, K)}
    for name in (f"{at}.rel_attn.layer_norm", f"{at}.ff.layer_norm"):
      shapes |= {f"{name}.weight": (D,), f"{name}.bias": (D,)}
    for name, shape in ((f"{at}.ff.layer_1", (F, D)), (f"{at}.ff.layer_2", (D, F))):
      shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
  return shapes


def _layer(folder, at, order) -> dict:
  found = folder.arrays([name for name in folder.shapes if name.startswith(at)])
  of = lambda name: found[at + name]
  norm = lambda name: {"scale": of(f"{name}.weight"), "bias": of(f"{name}.bias")}
  affine = lambda name: (of(f"ff.{name}.weight").T, of(f"ff.{name}.bias"))
  return {
    "query": {"kernel_DNK": of("rel_attn.q")}, "key": {"kernel_DNK": of("rel_attn.k")},
    "value": {"kernel_DNH": of("rel_attn.v")}, "distance": {"kernel_DNK": of("rel_attn.r")[order]},
    "output": {"kernel_NHD": np.ascontiguousarray(of("rel_attn.o").transpose(1, 2, 0))},
    **{ours: of(f"rel_attn.{theirs}") for ours, theirs in BIASES.items()},
    "segments_2NK": of("rel_attn.seg_embed"), "attention_norm": norm("rel_attn.layer_norm"),
    "feed_forward": reading.feed_forward(affine("layer_1"), affine("layer_2")),
    "feed_forward_norm": norm("ff.layer_norm"),
  }  # fmt: skip


def _vocabulary(folder, V):
  """(the id there of each here, its piece, content of tokenizer.model)."""
  model = folder.bytes("spiece.model")
  processor = joint_pieces.open_model(model, folder.path / "spiece.model")
  if processor.get_piece_size() != V:
    raise UserError(f"{folder.path}/spiece.model has {processor.get_piece_size()} pieces, config.json says {V}")
  there = [processor.id_to_piece(i) for i in range(V)]
  said = folder.json("tokenizer_config.json", {})
  if said.get("do_lower_case") not in (False, None):
    raise UserError(
      f"{folder.path}/tokenizer_config.json: do_lower_case = {said['do_lower_case']!r:.60}, but texts are not made "
      "lower-case here"
    )
  special = [_special(folder, said, name) for name in ("pad", "cls", "sep", "unk")]
  if missing := [piece for piece in special if piece not in there]:
    raise UserError(f"{folder.path}/spiece.model is not a vocabulary of XLNet: it has no {', '.join(missing)}")
  if len(set(special)) < len(special):
    raise UserError(f"{folder.path}/tokenizer_config.json gives two of {', '.join(special)} one name")
  first = [there.index(piece) for piece in special]
  ids = np.array([*first, *(i for i in range(V) if i not in first)])
  pieces = [there[i] for i in ids]
  joint_pieces.check_pieces(pieces, folder.path / "spiece.model")
  return ids, pieces, joint_pieces.dump(pieces, model, model)


def _special(folder, said, name) -> str:
  """The piece that is the token of this name. said: tokenizer_config.json."""
  said = said.get(f"{name}_token")
  said = f"<{name}>" if said is None else said
  piece = said.get("content") if isinstance(said, dict) else said
  if not isinstance(piece, str):
    raise UserError(f"{folder.path}/tokenizer_config.json: {name}_token = {said!r:.60} is no piece")
  return piece
