"""Every model of the zoo, imported when it is first used.

A module of `models/` offers `Config` (a frozen dataclass that checks itself), `Model` (a Flax module made from it),
`BATCH` (the names of what it reads of a batch, int32 of `batch_shapes`), `parameter_count(config)`, `small()` (a Config
for tests) and, if it generates, `decoding`, whose arguments the task says. Where some of its parameters learn at other
rates, learning_rate_factor(config, path, step) is what `protocols.Task` says; 0 freezes.
What a layer adds to the loss it sows into the collection "losses", figures about itself into "figures": scalars of the
whole batch.
"""

import importlib

from attention_zoo.errors import UserError
from attention_zoo.grammar import nearest

# Name in `config.model.name` -> module.
MODELS = {
  "transformer": "attention_zoo.models.translation.transformer",
  "sutskever": "attention_zoo.models.seq2seq.sutskever",
  "bahdanau": "attention_zoo.models.seq2seq.bahdanau",
  "luong": "attention_zoo.models.seq2seq.luong",
  "gnmt": "attention_zoo.models.seq2seq.gnmt",
  "deep_att": "attention_zoo.models.seq2seq.deep_att",
  "moe_lstm": "attention_zoo.models.seq2seq.moe_lstm",
  "glimpse": "attention_zoo.models.seq2seq.glimpse",
  "transformer_lm": "attention_zoo.models.language.transformer_lm",
  "lstm_lm": "attention_zoo.models.language.lstm_lm",
  "music_transformer": "attention_zoo.models.music.music_transformer",
  "performance_rnn": "attention_zoo.models.music.performance_rnn",
  "bert": "attention_zoo.models.pretraining.bert",
  "gpt": "attention_zoo.models.pretraining.gpt",
  "xlnet": "attention_zoo.models.pretraining.xlnet",
  "bilm": "attention_zoo.models.pretraining.bilm",
  "elmo": "attention_zoo.models.pretraining.elmo",
  "taglm": "attention_zoo.models.pretraining.taglm",
  "cove": "attention_zoo.models.pretraining.cove",
  "ulmfit": "attention_zoo.models.pretraining.ulmfit",
  "bilstm_crf": "attention_zoo.models.tagging.bilstm_crf",
  "bytenet": "attention_zoo.models.translation.bytenet",
  "conv_s2s": "attention_zoo.models.translation.conv_s2s",
  "image_transformer": "attention_zoo.models.image.image_transformer",
  "image_transformer_sr": "attention_zoo.models.image.image_transformer_sr",
  "factorised": "attention_zoo.models.image.factorised",
  "pixel_rnn": "attention_zoo.models.image.pixel_rnn",
  "gated_pixelcnn": "attention_zoo.models.image.gated_pixelcnn",
  "pixelcnn_pp": "attention_zoo.models.image.pixelcnn_pp",
  "pixel_snail": "attention_zoo.models.image.pixel_snail",
  "resnet_sr": "attention_zoo.models.image.resnet_sr",
  "pixel_recursive_sr": "attention_zoo.models.image.pixel_recursive_sr",
  "srez_gan": "attention_zoo.models.image.srez_gan",
  "nonlocal_net": "attention_zoo.models.vision.nonlocal_net",
  "sagan": "attention_zoo.models.vision.sagan",
}


def find(name: str, batch=None):
  """The module of a model.

  batch: the names of what a task's batches have. Raises UserError for a name that is none,
  and for a model that reads something else.
  """
  if not isinstance(name, str) or name not in MODELS:
    raise UserError(f"config.model.name = {name!r} is not one of {', '.join(MODELS)}{nearest(name, MODELS)}")
  module = importlib.import_module(MODELS[name])
  if batch is not None and (missing := [field for field in module.BATCH if field not in batch]):
    raise UserError(
      f"config.model.name = {name!r} is no model for this task, whose batches have no {', '.join(missing)}: "
      "choose another model or another config.task"
    )
  return module


# Parts of a batch that are no rows of tokens: name -> (fields of the model's Config or sizes) of one row.
# characters: those of each word (`data/words.py`), `word_length` of them.
PICTURES = {"pixels": ("size", "size", 3), "low": ("low_size", "low_size", 3), "labels": ()}


def batch_shapes(module, config, *, rows: int, length: int) -> dict[str, tuple[int, ...]]:
  """Name -> shape of what a model of a module reads of a batch. length: tokens of a row, where it has any."""
  known = PICTURES | {"characters": (length, "word_length")}
  sizes = {name: known.get(name, (length,)) for name in module.BATCH}
  return {
    name: (rows, *(getattr(config, size) if isinstance(size, str) else size for size in row))
    for name, row in sizes.items()
  }
