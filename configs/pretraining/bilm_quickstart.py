"""A small bidirectional language model of the embedded phrasebook's English sentences, whose words it reads by their
characters: what elmo_quickstart.py and taglm_quickstart.py begin with. Minutes on two CPU cores, no files, no network.
Ours: not run.

  python -m attention_zoo.train    --config=configs/pretraining/bilm_quickstart.py --workdir=BILM
  python -m attention_zoo.evaluate --workdir=BILM --split=test
"""

import ml_collections

from attention_zoo.configs.language import quickstart


def get_config():
  config = quickstart.get_config()
  with config.unlocked():
    config.task = "bidirectional_language_modeling"
    config.decode = ml_collections.ConfigDict(dict(batch_tokens=4096))
    del config.data["normalization"], config.data["split_digits"]
    config.data.marks = True  # marks at the end of a word are words of their own
    config.data.buckets = 0
  config.model = ml_collections.ConfigDict(
    dict(
      name="bilm", word_length=16, d_character=16, filters=((1, 16), (2, 16), (3, 32), (4, 64)), num_highway=1,
      d_model=64, d_hidden=128, num_layers=2, dropout=0.1, dtype="float32", matmul_dtype="float32",
    )  # fmt: skip
  ).lock()
  config.data.update(tokenizer="words", vocab_size=2048, batching="packed", batch_tokens=2048, row_length=64)
  config.optimizer.update(
    name="adam(b1=0.9, b2=0.999, eps=1e-8)", schedule="cosine(decay_steps=600, end_factor=0.1)", learning_rate=3e-3,
    warmup_steps=50, d_model=64, clip_norm=1.0,
  )  # fmt: skip
  config.train.update(steps=600, eval_every=200, checkpoint_every=200, log_every=50)
  return config
