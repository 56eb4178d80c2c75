"""CoVe: what the encoder of a translation model has learnt, read by a classifier that tells of each sentence of the
embedded phrasebook which kind of value comes last. Minutes on two CPU cores, no files, no network. Ours: not run.

  python -m attention_zoo.train    --config=configs/pretraining/cove_quickstart.py --workdir=DIR \\
      --config.train.init_from=TRANSLATION
  python -m attention_zoo.evaluate --workdir=DIR --split=test

TRANSLATION is a run of configs/seq2seq/bahdanau_phrasebook.py. Without init_from it is the control, and
encoder_tuned=True one that learns all of it.
"""

import ml_collections

from attention_zoo.configs.pretraining import classification_quickstart


def get_config():
  config = classification_quickstart.get_config()
  config.model = ml_collections.ConfigDict(
    dict(
      name="cove", d_embedding=128, d_encoder=192, encoder_tuned=False, d_hidden=64, dropout=0.2, dtype="float32",
      matmul_dtype="float32",
    )  # fmt: skip
  ).lock()
  with config.unlocked():
    config.data.normalization, config.data.split_digits = "nmt_nfkc", True  # where it begins at random
  config.data.update(tokenizer="bpe", vocab_size=2048)
  config.head.update(pooling="concat", width=64)
  config.optimizer.update(name="adam(b1=0.9, b2=0.999, eps=1e-8)", learning_rate=3e-3)
  return config
