"""ULMFiT (Howard and Ruder 2018): the language model of ulmfit_lm_quickstart.py is tuned to tell of each sentence of
the embedded phrasebook which kind of value comes last. Minutes on two CPU cores, no files, no network. Ours: not run.

  python -m attention_zoo.train    --config=configs/pretraining/ulmfit_quickstart.py --workdir=DIR \\
      --config.train.init_from=LM
  python -m attention_zoo.evaluate --workdir=DIR --split=test

Without init_from, and with rate_decay=1.0 and unfreeze_every=0, it is the control that begins at random.
"""

import ml_collections

from attention_zoo.configs.pretraining import classification_quickstart, ulmfit_lm_quickstart


def get_config():
  config = classification_quickstart.get_config()
  fields = {**ulmfit_lm_quickstart.MODEL, "rate_decay": 2.6, "unfreeze_every": 20}
  config.model = ml_collections.ConfigDict(fields).lock()
  with config.unlocked():
    config.data.normalization, config.data.split_digits = "nmt_nfkc", True  # where it begins at random
  config.data.update(tokenizer="bpe", vocab_size=1024)
  config.head.update(pooling="concat", width=50, dropout=0.1)
  config.optimizer.update(
    name="adam(b1=0.7, b2=0.99, eps=1e-8)", schedule="slanted_triangular(total_steps=200)", learning_rate=1e-2,
    warmup_steps=0, d_model=96,
  )  # fmt: skip
  return config
