"""BERT and RoBERTa folders for transformers, of encoders of this package: what `from_bert` reads.

A vocabulary of bytes makes a RoBERTa, one of word pieces a BERT; a masked language model goes with its outputs, a
classifier that reads the pooler with its own, a tagger whose words stand by themselves with its own and without a
pooler. Special tokens have the ids 0 to 4, as here. RoBERTa's first position is the one behind the id of padding: a row
of zeros stands before ours.
"""


import jax
import numpy as np

from attention_zoo import files
from attention_zoo.data import byte_bpe, wordpiece
from attention_zoo.data.tokenizer import BOS, EOS, PAD
from attention_zoo.errors import UserError
from attention_zoo.exchange import needs


def bert(run) -> tuple[dict, dict]:
  """(config.json, the state dict). Raises UserError for what transformers has no class for."""
  c, kind = run.task.model_config, _kind(run)
  needs.check_transformer(
    run, f"transformers' {kind}", "bert", residual="post", bias=True, positions="learned", scale_embedding=False,
    output_bias=False, attention="dot_product",
  )  # fmt: skip
  _check_pairs(run, kind)
  params, shift = jax.device_get(run.params), 1 if kind == "roberta" else 0
  config = {
    "model_type": kind, "vocab_size": c.vocab_size, "hidden_size": c.d_model, "num_attention_heads": c.num_heads,
    "num_hidden_layers": c.num_layers, "intermediate_size": c.d_ff, "hidden_act": needs.ACTIVATIONS[c.activation],
    "max_position_embeddings": c.max_length + shift, "type_vocab_size": c.num_types, "layer_norm_eps": c.norm_epsilon,
    "hidden_dropout_prob": c.dropout, "attention_probs_dropout_prob": c.attention_dropout, "pad_token_id": PAD,
    "bos_token_id": BOS, "eos_token_id": EOS, "tie_word_embeddings": True,
  }  # fmt: skip
  embedding, at = params["embedding"]["table_VD"], f"{kind}.embeddings"
  positions = params["positions"]["table_TD"]
  state = {
    f"{at}.word_embeddings.weight": embedding,
    f"{at}.position_embeddings.weight": np.concatenate([np.zeros_like(positions[:shift]), positions]),
    f"{at}.token_type_embeddings.weight": params["types"][f"table_{c.num_types}D"],
  }
  needs.write_norm(state, f"{at}.LayerNorm", params["embedding_norm"])
  for i in range(c.num_layers):
    layer, at = params["encoder"][f"layer_{i}"], f"{kind}.encoder.layer.{i}"
    for name, values in needs.attention(layer["self_attention"], c.d_model).items():
      needs.write_linear(state, f"{at}.attention.{'output.dense' if name == 'output' else f'self.{name}'}", values)
    needs.write_norm(state, f"{at}.attention.output.LayerNorm", layer["self_attention_norm"])
    wi, wo = layer["feed_forward"]["wi"], layer["feed_forward"]["wo"]
    needs.write_linear(state, f"{at}.intermediate.dense", (wi["kernel_DF"].T, wi["bias_F"]))
    needs.write_linear(state, f"{at}.output.dense", (wo["kernel_FD"].T, wo["bias_D"]))
    needs.write_norm(state, f"{at}.output.LayerNorm", layer["feed_forward_norm"])
  return config | _heads(run, kind, params, state), state


def _kind(run) -> str:
  tokenizer = run.task.tokenizer
  if isinstance(tokenizer, wordpiece.WordPiece):
    return "bert"
  if isinstance(tokenizer, byte_bpe.ByteBPE):
    return "roberta"
  raise UserError("transformers' BERT needs a vocabulary of word pieces, RoBERTa one of bytes (byte_bpe)")


def _check_pairs(run, kind) -> None:
  """Raises UserError unless a pair of texts becomes the same row there."""
  separators = 2 if kind == "roberta" else 1
  if run.config.data.separators != separators:
    raise UserError(
      f"config.data.separators = {run.config.data.separators}, but transformers' {kind} has {separators} </s> between "
      "two sentences"
    )
  if kind == "roberta" and (types := run.task.model_config.num_types) > 1:
    raise UserError(f"config.model.num_types = {types}, but transformers' roberta does not tell two sentences apart")


def _heads(run, kind, params, state) -> dict:
  """What config.json says of the head; its arrays and the pooler's go into the state."""
  name = {"bert": "Bert", "roberta": "Roberta"}[kind]

  def write_pooler(there):
    needs.write_linear(state, there, (params["pooler"]["kernel_DU"].T, params["pooler"]["bias_U"]))

  def write_output(head, there):
    needs.write_linear(state, there, (head["output"]["kernel_UO"].T, head["output"]["bias_O"]))
    labels = {str(i): label for i, label in enumerate(run.task.labels)}
    numbers = {label: int(i) for i, label in labels.items()}
    return {"id2label": labels, "label2id": numbers, "classifier_dropout": run.config.head.dropout}

  if head := params.get("masked_head"):
    prefix = "cls.predictions" if kind == "bert" else "lm_head"
    linear, norm = ("transform.dense", "transform.LayerNorm") if kind == "bert" else ("dense", "layer_norm")
    needs.write_linear(state, f"{prefix}.{linear}", (head["transform"]["kernel_DF"].T, head["transform"]["bias_F"]))
    needs.write_norm(state, f"{prefix}.{norm}", head["norm"])
    state[f"{prefix}.bias"] = head["bias_V"]
    if "pooler" in params:
      write_pooler(f"{kind}.pooler.dense")
    if after := head.get("next_sentence"):
      if kind != "bert":
        raise UserError("transformers' RoBERTa does not tell the next sentence")
      needs.write_linear(state, "cls.seq_relationship", (after["kernel_UO"].T, after["bias_O"]))
      return {"architectures": ["BertForPreTraining"]}
    return {"architectures": [f"{name}ForMaskedLM"]}
  head = params.get("classification_head")
  if head and "hidden" not in head and run.config.head.pooling == "pooler":
    names = {"bert": ("bert.pooler.dense", "classifier"), "roberta": ("classifier.dense", "classifier.out_proj")}
    pooler, output = names[kind]
    write_pooler(pooler)
    return {"architectures": [f"{name}ForSequenceClassification"]} | write_output(head, output)
  head = params.get("tagging_head")
  if head and run.config.head.name == "softmax":
    return {"architectures": [f"{name}ForTokenClassification"]} | write_output(head, "classifier")
  raise UserError(
    "transformers has no class for this head: only masks; classes with config.head.pooling = 'pooler' and width = 0; "
    "and tags with config.head.name = 'softmax'"
  )


def tokenizer(run, folder) -> None:
  """The files of BertTokenizer or RobertaTokenizer."""
  ours = run.task.tokenizer
  if _kind(run) == "bert":
    files.write_text(folder / "vocab.txt", "".join(f"{piece}\n" for piece in ours.raw))
    said = {"tokenizer_class": "BertTokenizer", "do_lower_case": ours.lower, "strip_accents": not ours.accents}
  else:
    needs.write_json(folder / "vocab.json", {piece: i for i, piece in enumerate(ours.raw)})
    merges = "".join(f"{left} {right}\n" for left, right in ours.merges)
    files.write_text(folder / "merges.txt", f"#version: 0.2\n{merges}")
    mask = {"content": ours.mask_piece, "lstrip": True}  # it takes the space before it
    mask |= {"__type": "AddedToken", "rstrip": False, "single_word": False, "normalized": False}
    said = {"tokenizer_class": "RobertaTokenizer", "mask_token": mask}
  needs.write_json(folder / "tokenizer_config.json", said | {"model_max_length": run.config.data.row_length})
