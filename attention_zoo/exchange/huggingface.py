"""Folders for Hugging Face `transformers`: a MarianMT model of a Transformer, a GPT-2 of a language model, a BERT or
RoBERTa of an encoder (`to_bert`), an XLNet of a permutation language model (`to_xlnet`).

Written without transformers or torch. `AutoModelForSeq2SeqLM.from_pretrained(FOLDER)` opens the first,
`AutoModelForCausalLM` the second, `AutoModelForMaskedLM`, `AutoModelForSequenceClassification` or
`AutoModelForTokenClassification` the third, `XLNetLMHeadModel` the fourth.

| what | there | what is done |
|---|---|---|
| sines and cosines of positions | all sines, then all cosines; ours take turns | d_model is reordered throughout |
| epsilon of Marian's normalisation | 1e-5, not to be set | nothing: logits differ by 1e-4 at most where ours is 1e-6 |
| biases of attention | always | zeros where we have none |
| length penalty | length^alpha; ours ((5 + length) / 6)^alpha | alpha is written: with 0 they are the same |
| GPT-2's bias of logits, <s> beside the end of a text | none | what `from_gpt2` added is taken away; else refused |
"""


import jax
import ml_dtypes
import numpy as np
import safetensors.numpy

from attention_zoo import files
from attention_zoo.data import byte_bpe, joint_pieces
from attention_zoo.data.tokenizer import BOS, EOS, PAD, UNK
from attention_zoo.errors import UserError
from attention_zoo.exchange import card, needs, to_bert, to_xlnet
from attention_zoo.exchange.folder import write_sums


def check(dtype) -> None:
  """Raises UserError for a type of parameters that transformers does not read from a folder."""
  if dtype not in ("float32", "bfloat16"):
    raise UserError(f"--dtype={dtype}: transformers reads float32 or bfloat16 parameters from a folder")


def write(run, to, dtype="float32") -> None:
  """Writes a loaded run to the new folder `to`. dtype: float32 or bfloat16.

  Raises UserError for a model that transformers has no class for, naming the field.
  """
  check(dtype)
  makers = {"transformer": marian, "transformer_lm": gpt2, "bert": to_bert.bert, "xlnet": to_xlnet.xlnet}
  make = makers.get(run.config.model.name)
  if make is None:
    names = "only a transformer, transformer_lm, bert or xlnet can be written"
    raise UserError(f"transformers has no {run.config.model.name}: {names}")
  config, state = make(run)
  kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.float32
  state = {name: np.ascontiguousarray(np.asarray(state[name]).astype(kind)) for name in sorted(state)}
  with files.new_folder(to) as folder:
    files.write_bytes(folder / "model.safetensors", safetensors.numpy.save(state, {"format": "pt"}))
    needs.write_json(folder / "config.json", config | {"dtype": dtype})
    _tokenizer(run, folder, config["model_type"])
    files.write_text(folder / "README.md", _text(run, config["model_type"]))
    write_sums(folder)


def marian(run) -> tuple[dict, dict]:
  """(config.json, the state dict) of a MarianMTModel."""
  needs.check_transformer(
    run, "transformers' Marian", "transformer", residual="post", positions="sinusoidal", scale_embedding=True,
    encoder_attention="dot_product", decoder_attention="dot_product",
  )  # fmt: skip
  c = run.task.model_config
  if c.d_model % 2:
    raise UserError(f"transformers' Marian needs an even d_model, not {c.d_model}")
  order = np.r_[0 : c.d_model : 2, 1 : c.d_model : 2]  # all sines, then all cosines
  params = reordered(jax.device_get(run.params), order)
  table = params["embedding"]["table_VD"]
  longest = max(c.max_length, run.config.data.max_length + run.config.decode.extra_length + 1)
  config = {
    "architectures": ["MarianMTModel"], "model_type": "marian", "vocab_size": c.vocab_size, "d_model": c.d_model,
    "decoder_vocab_size": c.vocab_size, "share_encoder_decoder_embeddings": True, "tie_word_embeddings": True,
    "encoder_layers": c.num_encoder_layers, "decoder_layers": c.num_decoder_layers,
    "encoder_attention_heads": c.num_heads, "decoder_attention_heads": c.num_heads,
    "encoder_ffn_dim": c.d_ff, "decoder_ffn_dim": c.d_ff, "activation_function": needs.ACTIVATIONS[c.activation],
    "dropout": c.dropout, "attention_dropout": c.attention_dropout, "activation_dropout": 0.0,
    "scale_embedding": True, "static_position_embeddings": True, "max_position_embeddings": longest,
    "is_encoder_decoder": True, "pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": EOS,
    "decoder_start_token_id": BOS, "forced_eos_token_id": None,
  }  # fmt: skip
  state = {"model.shared.weight": table, "final_logits_bias": np.zeros((1, c.vocab_size), np.float32)}
  if c.output_bias:
    state["final_logits_bias"] = params["output_bias_V"][None]
  for side, layers in (("encoder", c.num_encoder_layers), ("decoder", c.num_decoder_layers)):
    for i in range(layers):
      layer, at = params[side][f"layer_{i}"], f"model.{side}.layers.{i}"
      for ours, theirs in (("self_attention", "self_attn"), ("cross_attention", "encoder_attn")):
        if ours in layer:
          for name, values in needs.attention(layer[ours], c.d_model).items():
            needs.write_linear(state, f"{at}.{theirs}.{'out' if name == 'output' else name[0]}_proj", values)
          needs.write_norm(state, f"{at}.{theirs}_layer_norm", layer[f"{ours}_norm"])
      wi, wo = layer["feed_forward"]["wi"], layer["feed_forward"]["wo"]
      needs.write_linear(state, f"{at}.fc1", (wi["kernel_DF"].T, wi["bias_F"]))
      needs.write_linear(state, f"{at}.fc2", (wo["kernel_FD"].T, wo["bias_D"]))
      needs.write_norm(state, f"{at}.final_layer_norm", layer["feed_forward_norm"])
  return config, state


def gpt2(run) -> tuple[dict, dict]:
  """(config.json, the state dict) of a GPT2LMHeadModel."""
  needs.check_transformer(
    run, "transformers' GPT-2", "transformer_lm", residual="pre", positions="learned", scale_embedding=False,
    attention="dot_product", tied=True,
  )  # fmt: skip
  c, params = run.task.model_config, jax.device_get(run.params)
  table, bos, eos = params["embedding"]["table_VD"], BOS, EOS
  if c.output_bias:
    table, bos = _without_added(table, params["output_bias_V"]), len(table) - len(ADDED) - 1
    eos = bos
  config = {
    "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "vocab_size": len(table), "n_embd": c.d_model,
    "n_positions": c.max_length, "n_layer": c.num_layers, "n_head": c.num_heads, "n_inner": c.d_ff,
    "activation_function": needs.ACTIVATIONS[c.activation], "layer_norm_epsilon": c.norm_epsilon,
    "resid_pdrop": c.dropout, "embd_pdrop": c.dropout, "attn_pdrop": c.attention_dropout, "bos_token_id": bos,
    "eos_token_id": eos, "tie_word_embeddings": True,
  }  # fmt: skip
  state = {"transformer.wte.weight": table}
  state["transformer.wpe.weight"] = params["positions"]["table_TD"]
  needs.write_norm(state, "transformer.ln_f", params["decoder"]["norm"])
  for i in range(c.num_layers):
    layer, at = params["decoder"][f"layer_{i}"], f"transformer.h.{i}"
    needs.write_norm(state, f"{at}.ln_1", layer["self_attention_norm"])
    needs.write_norm(state, f"{at}.ln_2", layer["feed_forward_norm"])
    found = needs.attention(layer["self_attention"], c.d_model)
    joined = [np.concatenate([found[name][j] for name in ("query", "key", "value")]) for j in (0, 1)]
    wi, wo = layer["feed_forward"]["wi"], layer["feed_forward"]["wo"]
    for name, (weight, bias) in {
      "attn.c_attn": joined,
      "attn.c_proj": found["output"],
      "mlp.c_fc": (wi["kernel_DF"].T, wi["bias_F"]),
      "mlp.c_proj": (wo["kernel_FD"].T, wo["bias_D"]),
    }.items():
      needs.write_linear(state, f"{at}.{name}", (weight.T, bias))  # GPT-2's linear maps are [in, out]
  return config, state


ADDED = (PAD, BOS, UNK)  # tokens that GPT-2 has not


def _without_added(table_VD, bias_V):
  """The rows as GPT-2 has them, the end of a text last. Raises UserError for what GPT-2 cannot do without."""
  added = np.isin(np.arange(len(bias_V)), ADDED)
  if bias_V[~added].any() or (bias_V[added] > -1e3).any() or (table_VD[BOS] != table_VD[EOS]).any():
    raise UserError(
      "transformers' GPT-2 has no bias of the logits, and one token that begins and ends a text: here they differ, as "
      "they do after training"
    )
  return np.concatenate([table_VD[UNK + 1 :], table_VD[[EOS]]])


def reordered(params, order):
  """Parameters of the same function, with d_model in another order."""

  def one(path, value):
    parent, leaf = ["", *(key.key for key in path)][-2:]
    letters = "D" if parent.endswith("norm") else leaf.rpartition("_")[2]
    return np.take(value, order, letters.index("D")) if "D" in letters else value

  return jax.tree.map_with_path(one, params)


def _tokenizer(run, folder, kind):
  """MarianTokenizer's files, and GPT2Tokenizer's of a vocabulary of that kind; another one of a language model is put
  beside it as it is."""
  if own := {"bert": to_bert, "roberta": to_bert, "xlnet": to_xlnet}.get(kind):
    own.tokenizer(run, folder)
    return
  path = files.expand(run.task.workdir) / "tokenizer.model"
  content = path.read_bytes() if path.exists() else b""
  if kind != "marian":
    if (found := byte_bpe.parse(content, path)) is not None:
      _byte_bpe(folder, found, reduced=run.task.model_config.output_bias)
    elif content:
      files.write_bytes(folder / "tokenizer.model", content)
    return
  found = joint_pieces.read(content, path)
  if found is None:
    processor = joint_pieces.open_model(content, path)
    found = [processor.id_to_piece(i) for i in range(processor.get_piece_size())], content, content
  pieces, *models = found
  for name, model in zip(("source.spm", "target.spm"), models, strict=True):
    files.write_bytes(folder / name, model)
  needs.write_json(folder / "vocab.json", {piece: i for i, piece in enumerate(pieces)})
  languages = run.config.data.languages
  special = {name: pieces[i] for name, i in (("pad_token", PAD), ("eos_token", EOS), ("unk_token", UNK))}
  needs.write_json(
    folder / "tokenizer_config.json",
    special | {
      "tokenizer_class": "MarianTokenizer", "source_lang": languages[0], "target_lang": languages[1],
      "model_max_length": run.config.data.max_length, "separate_vocabs": False,
    },
  )  # fmt: skip
  decode = run.config.decode
  needs.write_json(
    folder / "generation_config.json",
    {
      "num_beams": decode.beam_size, "length_penalty": decode.alpha,
      "max_new_tokens": run.config.data.max_length + decode.extra_length,
      "pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": EOS, "decoder_start_token_id": BOS,
    },
  )  # fmt: skip


def _byte_bpe(folder, tokenizer, reduced):
  """GPT2Tokenizer's files. reduced: the pieces are those of the rows of `_without_added`."""
  special = tokenizer.raw[EOS]
  pieces = [*tokenizer.raw[UNK + 1 :], special] if reduced else tokenizer.raw
  needs.write_json(folder / "vocab.json", {piece: i for i, piece in enumerate(pieces)})
  merges = "".join(f"{left} {right}\n" for left, right in tokenizer.merges)
  files.write_text(folder / "merges.txt", f"#version: 0.2\n{merges}")
  names = dict.fromkeys(("bos_token", "eos_token", "unk_token"), special)
  needs.write_json(folder / "tokenizer_config.json", {"tokenizer_class": "GPT2Tokenizer"} | names)


def _text(run, kind):
  use = {
    "marian": """from transformers import AutoModelForSeq2SeqLM, AutoTokenizer
tokenizer, model = AutoTokenizer.from_pretrained(FOLDER), AutoModelForSeq2SeqLM.from_pretrained(FOLDER)
tokenizer.batch_decode(model.generate(**tokenizer(["..."], return_tensors="pt")), skip_special_tokens=True)""",
    **dict.fromkeys(
      ("bert", "roberta"),
      """from transformers import AutoModel, AutoTokenizer
tokenizer, model = AutoTokenizer.from_pretrained(FOLDER), AutoModel.from_pretrained(FOLDER)
model(**tokenizer("...", return_tensors="pt")).last_hidden_state""",
    ),
    "xlnet": """import torch
from transformers import AutoModel, AutoTokenizer
tokenizer, model = AutoTokenizer.from_pretrained(FOLDER), AutoModel.from_pretrained(FOLDER)
ids = tokenizer("...", add_special_tokens=False).input_ids
# A row as run.vectors has it: what the tokenizer would put at its end is at its beginning.
ids = torch.tensor([[tokenizer.cls_token_id, *ids, tokenizer.sep_token_id]])
vectors = model(ids).last_hidden_state""",
    "gpt2": """from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(FOLDER)  # the vocabulary is beside it""",
  }[kind]
  return (
    f"# {run.config.model.name}, as {kind} for transformers\n\n{card.made(run)}"
    f"\n\n```python\n{use}\n```\n"
  )
