"""BERT and RoBERTa folders of transformers as encoders of this package: with the outputs of pretraining, a masked
language model; of the classes ..ForSequenceClassification, a classifier; of ..ForTokenClassification, a tagger.

| what | there | here |
|---|---|---|
| special tokens | anywhere in the vocabulary | ids 0 to 4: padding, <s> or [CLS], </s> or [SEP], unknown, mask |
| vocabulary | vocab.txt; vocab.json and merges.txt; or tokenizer.json | `data/wordpiece.py`, `data/byte_bpe.py` |
| RoBERTa's positions | begin behind the id of padding, 2 | begin at 0: the rows before are left out |
| LayerNorm of old files | gamma, beta | weight, bias |
| RoBERTa's classes | a map of <s>, tanh, a map | the first is a pooler: while tuned, nothing is dropped before it |
| a pooler that the class does not ask | perhaps | left out |
| tags | in any order; some may lack | O, B-TYPE, I-TYPE, ..; one that lacks has the bias -10,000: not for tuning |

Letters beside the house's: O classes or tags, U width of what stands for a row or a word.
"""

import logging

import numpy as np

from attention_zoo.data import byte_bpe, wordpiece
from attention_zoo.data.labelled import OUTSIDE
from attention_zoo.data.tagged import tags_of
from attention_zoo.errors import UserError
from attention_zoo.exchange import from_gpt2, reading, settings

logger = logging.getLogger(__name__)

_TRANSFORM = {  # of the output of masks: linear map, normalisation, bias
  "bert": ("cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm", "cls.predictions.bias"),
  "roberta": ("lm_head.dense", "lm_head.layer_norm", "lm_head.bias"),
}
_TIED = {  # copies that may be there
  "bert": ("cls.predictions.decoder.weight", "cls.predictions.decoder.bias"),
  "roberta": ("lm_head.decoder.weight", "lm_head.decoder.bias"),
}
_CUT = {  # how tokenizer.json says that texts are cut
  "clean_text": True, "continuing_subword_prefix": "##", "max_input_chars_per_word": 100, "unk_token": "[UNK]"
}  # fmt: skip
_NEXT, _POOLER, _CLASSES = "cls.seq_relationship", "pooler.dense", "classifier"
_DENSE, _OUT = "classifier.dense", "classifier.out_proj"  # of RoBERTa's classes


def read(folder: reading.Folder) -> reading.Imported:
  """The model of a folder whose config.json says "bert" or "roberta".

  Raises UserError for a model that is computed in another way, and for a folder that is not in order: missing arrays
  and those of other shapes are all listed.
  """
  kind = folder.config["model_type"]
  folder.wanted(position_embedding_type="absolute", is_decoder=False, add_cross_attention=False)
  V, D, N = folder.size("vocab_size", low=5), folder.size("hidden_size"), folder.size("num_attention_heads")
  F, L = folder.size("intermediate_size"), folder.size("num_hidden_layers", most=reading.MOST_LAYERS)
  Z, types = folder.size("max_position_embeddings", low=4), folder.size("type_vocab_size", 2, most=9)
  if D % N:
    raise UserError(f"{folder.path}: hidden_size = {D} is not a multiple of {N} heads")
  activation = folder.activation("gelu", "hidden_act")
  names = _Names(folder, kind)
  has = lambda name: names.has(f"{name}.weight")
  masks, next_sentence = names.has(_TRANSFORM[kind][2]), has(_NEXT)
  if not masks and not has(_CLASSES) and not has(_OUT):
    raise UserError(
      f"{folder.path} has neither the output of masks nor one of classes or tags: save it with AutoModelForMaskedLM, "
      "AutoModelForSequenceClassification or AutoModelForTokenClassification"
    )
  task = "masked_language_modeling" if masks else _task(folder, kind)
  labels = () if masks else _labels(folder)
  pooling, output = names.inner(_POOLER), _CLASSES
  if kind == "roberta" and task == "classification":
    pooling, output = _DENSE, _OUT
  pooler = has(pooling) if masks else task == "classification"

  expected = {names.inner(name): shape for name, shape in _encoder(V, D, F, L, Z, types).items()}
  if pooler:
    expected |= _map(pooling, D, D)
  if masks:
    linear, norm, bias = _TRANSFORM[kind]
    expected |= _map(linear, D, D) | _norm(norm, D) | {bias: (V,)}
  if next_sentence:
    expected |= _map(_NEXT, D, 2)
  if labels:
    expected |= _map(output, D, len(labels))
  tied = dict(zip(_TIED[kind], ((V, D), (V,)), strict=True)) if masks else {}
  names.check(expected, tied, unasked=() if masks else f"{names.inner(_POOLER)}.")

  # RoBERTa's first position is the one behind the id of padding.
  first = folder.id("pad_token_id", min(V, Z - 2), 1) + 1 if kind == "roberta" else 0
  pieces, ids, tokenizer = (_word_pieces if kind == "bert" else _bytes)(folder, V)
  params = _params(names, D, N, L, types, ids, first)
  if pooler:
    params["pooler"] = _affine(names, pooling, "DU")
  length, dropout = Z - first, folder.number("hidden_dropout_prob", 0.1)
  model = {
    "name": "bert", "d_model": D, "d_ff": F, "num_heads": N, "d_k": D // N, "d_v": D // N, "num_layers": L,
    "dropout": dropout,
    "attention_dropout": folder.number("attention_probs_dropout_prob", 0.1), "residual": "post",
    "norm_epsilon": folder.number("layer_norm_eps", 1e-12), "bias": True, "attention": "dot_product",
    "activation": activation, "output_bias": False, "scale_embedding": False, "positions": "learned",
    "max_length": length, "num_types": types, "pooler": pooler,
  }  # fmt: skip
  data = {
    "vocab_size": len(pieces), "row_length": length, "separators": 2 if kind == "roberta" else 1,
    "tokenizer": "wordpiece" if kind == "bert" else "byte_bpe",
  }  # fmt: skip
  if kind == "bert":
    data["lower"] = wordpiece.parse(tokenizer, folder.path).lower
  decode = {"batch_tokens": max(8192, length)}
  head = {"dropout": folder.number("classifier_dropout", dropout)}
  if masks:
    params["masked_head"] = _masked_head(names, kind, ids, next_sentence)
    data |= {"batching": "sentence_pairs" if next_sentence else "full_sentences"}
    config = settings.config(task, model, data, decode)
  elif task == "classification":
    params["classification_head"] = {"output": _output(names, output, range(len(labels)))}
    config = settings.config(task, model, data | {"labels": labels, "source": "tsv"}, decode)
    config["head"] = head | {"pooling": "pooler", "width": 0}
  else:
    types, rows = _tags(labels, folder.path)
    params["tagging_head"] = {"output": _output(names, output, rows)}
    config = settings.config(task, model, data | {"labels": types, "source": "conll"}, decode)
    config["head"] = head | {"name": "softmax"}
    config["train"] = {name: value for name, value in config["train"].items() if name != "label_smoothing"}
  return reading.Imported(config, params, tokenizer, folder.origin({"bert": "BERT", "roberta": "RoBERTa"}[kind]))


class _Names:
  """The arrays of a folder, some of whose names have changed over the years."""

  def __init__(self, folder, kind):
    self._folder = folder
    self._prefix = f"{kind}." if any(name.startswith(f"{kind}.") for name in folder.shapes) else ""
    old = {"gamma": "weight", "beta": "bias"}
    renamed = {}
    for name in folder.shapes:
      stem, _, last = name.rpartition(".")
      renamed[f"{stem}.{old[last]}" if stem.endswith("LayerNorm") and last in old else name] = name
    self._file_name = renamed

  def inner(self, name):
    """The name of an array of the encoder."""
    return self._prefix + name

  def has(self, name) -> bool:
    return name in self._file_name

  def check(self, expected, tied, unasked) -> None:
    """Raises UserError unless the folder has these arrays. tied: copies of others that it may have. unasked: with what
    the names of others begin that it may have."""
    missing = [name for name in expected if name not in self._file_name]
    others = [
      f"{name} {found} instead of {shape}"
      for name, shape in (expected | tied).items()
      if self.has(name) and (found := self._folder.shapes[self._file_name[name]][1]) != shape
    ]
    if missing or others:
      lines = [f"  lacks {name} {expected[name]}" for name in missing] + [f"  has {line}" for line in others]
      raise UserError(f"{self._folder.path} is not the model of its config.json:\n" + "\n".join(lines))
    files = lambda names: {self._file_name[name]: shape for name, shape in names.items() if self.has(name)}
    self._folder.check(
      files(expected | tied),
      optional=(
        *files(tied),
        lambda name: name.endswith(("embeddings.position_ids", "embeddings.token_type_ids")),
        lambda name: name.startswith(unasked),
      ),
    )
    table = self.take(self.inner("embeddings.word_embeddings.weight"))
    for name, shape in tied.items():
      if self.has(name) and len(shape) == 2 and (self.take(name) != table).any():
        raise UserError(f"{self._folder.path}: {name} is not the embedding's table; only one table for both is read")

  def take(self, name) -> np.ndarray:
    name = self._file_name[name]
    return self._folder.arrays([name])[name]


def _map(name, inward, outward) -> dict:
  return {f"{name}.weight": (outward, inward), f"{name}.bias": (outward,)}


def _norm(name, D) -> dict:
  return {f"{name}.weight": (D,), f"{name}.bias": (D,)}


def _encoder(V, D, F, L, Z, types) -> dict:
  sizes = {"word": V, "position": Z, "token_type": types}
  shapes = {f"embeddings.{name}_embeddings.weight": (size, D) for name, size in sizes.items()}
  shapes |= _norm("embeddings.LayerNorm", D)
  for i in range(L):
    at = f"encoder.layer.{i}"
    for name in ("query", "key", "value"):
      shapes |= _map(f"{at}.attention.self.{name}", D, D)
    shapes |= _map(f"{at}.attention.output.dense", D, D) | _norm(f"{at}.attention.output.LayerNorm", D)
    shapes |= _map(f"{at}.intermediate.dense", D, F) | _map(f"{at}.output.dense", F, D)
    shapes |= _norm(f"{at}.output.LayerNorm", D)
  return shapes


def _affine(names, name, letters) -> dict:
  weight = names.take(f"{name}.weight").T
  return reading.affine(weight, names.take(f"{name}.bias"), weight.shape, letters)


def _scaled(names, name) -> dict:
  return {"scale": names.take(f"{name}.weight"), "bias": names.take(f"{name}.bias")}


def _params(names, D, N, L, types, ids, first) -> dict:
  table = lambda name: names.take(names.inner(f"embeddings.{name}_embeddings.weight"))
  params = {
    "embedding": {"table_VD": table("word")[ids]}, "positions": {"table_TD": table("position")[first:]},
    "types": {f"table_{types}D": table("token_type")},
    "embedding_norm": _scaled(names, names.inner("embeddings.LayerNorm")), "encoder": {},
  }  # fmt: skip
  for i in range(L):
    at = names.inner(f"encoder.layer.{i}.")
    affine = lambda name, at=at: (names.take(f"{at}{name}.weight").T, names.take(f"{at}{name}.bias"))
    linears = {name: affine(f"attention.self.{name}") for name in ("query", "key", "value")}
    params["encoder"][f"layer_{i}"] = {
      "self_attention": reading.attention(linears | {"output": affine("attention.output.dense")}, D, N),
      "self_attention_norm": _scaled(names, f"{at}attention.output.LayerNorm"),
      "feed_forward": reading.feed_forward(affine("intermediate.dense"), affine("output.dense")),
      "feed_forward_norm": _scaled(names, f"{at}output.LayerNorm"),
    }
  return params


def _masked_head(names, kind, ids, next_sentence) -> dict:
  linear, norm, bias = _TRANSFORM[kind]
  head = {"transform": _affine(names, linear, "DF"), "norm": _scaled(names, norm), "bias_V": names.take(bias)[ids]}
  if next_sentence:
    head["next_sentence"] = _affine(names, _NEXT, "UO")
  return head


def _output(names, name, rows) -> dict:
  """A linear map to those outputs of another one. rows: which; -1: none, it never is the largest."""
  weight, bias, rows = names.take(f"{name}.weight"), names.take(f"{name}.bias"), np.array(rows)
  kernel_UO = np.where(rows >= 0, weight.T[:, rows], 0).astype(np.float32)
  return {"kernel_UO": kernel_UO, "bias_O": np.where(rows >= 0, bias[rows], reading.FORBIDDEN).astype(np.float32)}


def _task(folder, kind) -> str:
  """Of a folder with classes or tags, whose arrays may have the same names. BERT's classes are those of a folder that
  does not say."""
  name = {"bert": "Bert", "roberta": "Roberta"}[kind]
  tasks = {"SequenceClassification": "classification", "TokenClassification": "tagging"}
  said = folder.config.get("architectures") or [f"{name}ForSequenceClassification"]
  for what, task in tasks.items():
    if said == [f"{name}For{what}"]:
      if task == "classification":
        folder.wanted(problem_type="single_label_classification")
      return task
  raise UserError(f"{folder.path}/config.json: architectures = {said!r:.60} cannot be computed here")


def _tags(labels, path) -> tuple[tuple[str, ...], list[int]]:
  """(the types of entities, the number there of each tag here; -1 where there is none: a warning names these)."""
  entities = [label for label in labels if label != OUTSIDE]
  others = [label for label in entities if label[:2] not in ("B-", "I-") or len(label) < 3]
  if OUTSIDE not in labels or others:
    what = f"has {', '.join(others[:20])}" if others else f"lacks {OUTSIDE}"
    raise UserError(f"{path}/config.json: id2label {what:.200}; read are tags of entities: O, B-TYPE and I-TYPE")
  types = tuple(dict.fromkeys(label[2:] for label in entities))
  numbers, tags = {label: i for i, label in enumerate(labels)}, tags_of(types)
  if missing := [tag for tag in tags if tag not in numbers]:
    logger.warning(
      "%s does not know the tags %s: here they have the bias -10,000, which training does not make up for. A run with "
      "them that begins with this one draws its head anew: --config.train.init_map='((\"^tagging_head/\", \"new/\"),)'",
      path, ", ".join(missing[:20]),
    )  # fmt: skip
  return types, [numbers.get(tag, -1) for tag in tags]


def _labels(folder) -> tuple[str, ...]:
  said = folder.config.get("id2label")
  said = {str(i): f"LABEL_{i}" for i in range(folder.size("num_labels", 2))} if said is None else said
  good = isinstance(said, dict) and {*said} == {str(i) for i in range(len(said))} and len(said) > 1
  if not good or not all(isinstance(label, str) and label for label in said.values()):
    raise UserError(f"{folder.path}/config.json: id2label does not name the classes 0, 1, ..")
  if len(set(said.values())) < len(said):
    raise UserError(f"{folder.path}/config.json: id2label gives two classes one name")
  return tuple(said[str(i)] for i in range(len(said)))


# Vocabularies: (pieces, the id there of each, content of tokenizer.model)


def _word_pieces(folder, V):
  said = folder.json("tokenizer_config.json", {})
  if (folder.path / "vocab.txt").is_file():
    name, content = "vocab.txt", folder.bytes("vocab.txt")
    lower, accents = said.get("do_lower_case", True), said.get("strip_accents")
    chinese = said.get("tokenize_chinese_chars", True)
  else:
    name, whole = "tokenizer.json", folder.json("tokenizer.json")
    model, normal, cut = (whole.get(part) for part in ("model", "normalizer", "pre_tokenizer"))
    kinds = [x.get("type") if isinstance(x, dict) else None for x in (model, normal, cut)]
    if kinds != ["WordPiece", "BertNormalizer", "BertPreTokenizer"] or not isinstance(model.get("vocab"), dict):
      raise UserError(f"{folder.path}/tokenizer.json does not cut texts as BERT does")
    said = model | normal
    for field, value in _CUT.items():
      if said.get(field, value) != value:
        raise UserError(f"{folder.path}/tokenizer.json: {field} = {said[field]!r:.60}, which BERT has as {value!r}")
    found = reading.pieces_of(model["vocab"], V, folder.path / name)
    content = "\n".join(found).encode()
    lower, accents = normal.get("lowercase", True), normal.get("strip_accents")
    chinese = normal.get("handle_chinese_chars", True)
  if type(lower) is not bool or accents not in (None, True, False) or chinese is not True:
    raise UserError(f"{folder.path}: the tokenizer does not cut texts as BERT does")
  pieces, ids = wordpiece.read(content, folder.path / name)
  if len(pieces) > V:
    raise UserError(f"{folder.path / name} has {len(pieces):,} pieces, more than config.json's vocab_size = {V:,}")
  more = range(len(pieces), V)  # rows that only fill the table
  pieces, ids = [*pieces, *(f"[row {i}]" for i in more)], np.array([*ids, *more])
  return pieces, ids, wordpiece.dump(pieces, lower, None if accents is None else not accents)


def _bytes(folder, V):
  pieces, merges = from_gpt2.vocabulary(folder, V)
  special = ["<pad>", "<s>", "</s>", "<unk>", byte_bpe.MASK_PIECE]
  if missing := [piece for piece in special if piece not in pieces]:
    raise UserError(f"{folder.path}: the vocabulary is not RoBERTa's, it has no {', '.join(missing)}")
  first = [pieces.index(piece) for piece in special]
  ids = np.array([*first, *(i for i in range(V) if i not in first)])
  pieces = [pieces[i] for i in ids]
  return pieces, ids, byte_bpe.dump(pieces, merges)
