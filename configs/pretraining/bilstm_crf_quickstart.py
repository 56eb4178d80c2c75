"""A small BiLSTM-CRF, not pretrained, that finds dates, places, numbers and other values in the
sentences of the embedded phrasebook: the control of elmo_quickstart.py and taglm_quickstart.py. A minute on two CPU
cores, no files, no network. Ours: not run.

  python -m attention_zoo.train    --config=configs/pretraining/bilstm_crf_quickstart.py --workdir=DIR
  python -m attention_zoo.evaluate --workdir=DIR --split=test
"""

import ml_collections

from attention_zoo.configs.pretraining import tagging_quickstart


def get_config():
  config = tagging_quickstart.get_config()
  config.model = ml_collections.ConfigDict(
    dict(
      name="bilstm_crf", d_word=32, word_length=16, spelling="lstm", d_character=16, d_spelling=16, filter_width=3,
      spell_unknown=False, cell="lstm", d_hidden=48, num_layers=1, dropout=0.3, dtype="float32",
      matmul_dtype="float32",
    )  # fmt: skip
  ).lock()
  with config.unlocked():
    config.data.buckets = 0  # ids that words without one share; 0: they are <unk>
    config.data.word_vectors = ""
  config.data.update(tokenizer="words", vocab_size=512)
  config.head.update(name="crf", dropout=0.0)
  config.optimizer.update(
    name="adam(b1=0.9, b2=0.999, eps=1e-8)", schedule="linear(decay_steps=190)", learning_rate=5e-3, warmup_steps=10,
    clip_norm=5.0,
  )  # fmt: skip
  return config
