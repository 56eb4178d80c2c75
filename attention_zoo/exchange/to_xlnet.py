"""XLNet folders for transformers, of permutation language models of this package: what `from_xlnet` reads.

The vocabulary is one of SentencePiece, of type unigram, as transformers has them; ids are those of its model. One whose
special pieces have other names than XLNet's goes with a tokenizer_config.json that says them. Of the two rates of
dropout transformers has one: that of the layers is written.

XLNetTokenizer of transformers 5 takes accents off a text, makes two grave accents or apostrophes a quotation mark and
a run of spaces one, whatever a vocabulary was learnt with; and it spells no character as bytes, so that a vocabulary
with pieces for them is refused.
"""

import jax
import numpy as np

from attention_zoo import files
from attention_zoo.data import identity, joint_pieces
from attention_zoo.data import tokenizer as tokenizers
from attention_zoo.data.tokenizer import BOS, BYTE_FALLBACK_FROM, EOS, PAD, UNK
from attention_zoo.errors import UserError
from attention_zoo.exchange import needs
from attention_zoo.exchange.from_xlnet import BIAS, BIASES, TABLE, taking_turns

_NAMES = {"pad_token": PAD, "cls_token": BOS, "sep_token": EOS, "unk_token": UNK}


def xlnet(run) -> tuple[dict, dict]:
  """(config.json, the state dict). Raises UserError for what transformers has no class for."""
  c, params = run.task.model_config, jax.device_get(run.params)
  if "permutation_head" not in params:
    raise UserError(
      "transformers' XLNet is written as it was pretrained: only a run of config.task = 'permutation_language_modeling'"
    )
  if c.num_heads * c.d_k != c.d_model:
    raise UserError(
      f"transformers' XLNet has heads of d_model / num_heads = {c.d_model / c.num_heads:g} dimensions, but "
      f"config.model.d_k = {c.d_k}"
    )
  _, ids = _vocabulary(run)
  config = {
    "architectures": ["XLNetLMHeadModel"], "model_type": "xlnet", "vocab_size": c.vocab_size, "d_model": c.d_model,
    "n_layer": c.num_layers, "n_head": c.num_heads, "d_head": c.d_k, "d_inner": c.d_ff,
    "ff_activation": needs.ACTIVATIONS[c.activation], "layer_norm_eps": c.norm_epsilon, "dropout": c.dropout,
    "mem_len": c.memory, "untie_r": True, "attn_type": "bi", "clamp_len": -1, "same_length": False, "bi_data": False,
    "pad_token_id": int(ids[PAD]), "bos_token_id": int(ids[BOS]), "eos_token_id": int(ids[EOS]),
    "tie_word_embeddings": True,
  }  # fmt: skip
  state = {
    TABLE: _placed(params["embedding"]["table_VD"], ids), BIAS: _placed(params["permutation_head"]["bias_V"], ids),
    "transformer.mask_emb": params["query_D"][None, None],
  }  # fmt: skip
  for i in range(c.num_layers):
    layer, at = params[f"layer_{i}"], f"transformer.layer.{i}"
    attention = {
      "q": layer["query"]["kernel_DNK"], "k": layer["key"]["kernel_DNK"], "v": layer["value"]["kernel_DNH"],
      "r": _placed(layer["distance"]["kernel_DNK"], taking_turns(c.d_model)),
      "o": layer["output"]["kernel_NHD"].transpose(2, 0, 1), "seg_embed": layer["segments_2NK"],
    }  # fmt: skip
    attention |= {theirs: layer[ours] for ours, theirs in BIASES.items()}
    state |= {f"{at}.rel_attn.{name}": value for name, value in attention.items()}
    needs.write_norm(state, f"{at}.rel_attn.layer_norm", layer["attention_norm"])
    wi, wo = layer["feed_forward"]["wi"], layer["feed_forward"]["wo"]
    needs.write_linear(state, f"{at}.ff.layer_1", (wi["kernel_DF"].T, wi["bias_F"]))
    needs.write_linear(state, f"{at}.ff.layer_2", (wo["kernel_FD"].T, wo["bias_D"]))
    needs.write_norm(state, f"{at}.ff.layer_norm", layer["feed_forward_norm"])
  return config, state


def tokenizer(run, folder) -> None:
  """The files of XLNetTokenizer."""
  model, _ = _vocabulary(run)
  files.write_bytes(folder / "spiece.model", model)
  pieces = run.task.tokenizer.pieces(range(run.task.tokenizer.vocab_size))
  names = {name: pieces[i] for name, i in _NAMES.items()}
  said = {
    "tokenizer_class": "XLNetTokenizer", "do_lower_case": False, "model_max_length": run.config.data.row_length,
    # What the vocabulary lacks of these would become ids beyond its end.
    "mask_token": "<mask>" if "<mask>" in pieces else names["unk_token"],
    "additional_special_tokens": [piece for piece in ("<eop>", "<eod>") if piece in pieces],
  }  # fmt: skip
  needs.write_json(folder / "tokenizer_config.json", said | names)


def _placed(values, ids):
  """values[i] at the row ids[i]."""
  found = np.empty_like(values)
  found[ids] = values
  return found


def _vocabulary(run) -> tuple[bytes, np.ndarray]:
  """(content of spiece.model, the id there of each id here)."""
  ours, path = run.task.tokenizer, files.expand(run.task.workdir) / identity.MODEL
  content = path.read_bytes()
  if isinstance(ours, (joint_pieces.JointPieces, tokenizers.Tokenizer)) and run.config.data.tokenizer == "unigram":
    joint = joint_pieces.read(content, path)
    model = joint[1] if joint else content
    processor = joint_pieces.open_model(model, path)
    there = range(processor.get_piece_size())
    if any(map(processor.is_byte, there)):
      raise UserError(
        f"{path} spells unknown characters as bytes, as vocabularies learnt here do from {BYTE_FALLBACK_FROM:,} pieces "
        "on; transformers' XLNetTokenizer would not: use --format=safetensors"
      )
    ids = [processor.piece_to_id(piece) for piece in ours.pieces(range(ours.vocab_size))]
    if sorted(ids) == [*there]:
      return model, np.array(ids)
  raise UserError(
    "transformers' XLNet needs a vocabulary of one SentencePiece model: config.data.tokenizer = 'unigram'"
  )
