"""A small AWD-LSTM on the embedded phrasebook's English sentences: the first of ULMFiT's runs.
Minutes on two CPU cores, no files, no network. Ours: not run.

  python -m attention_zoo.train  --config=configs/pretraining/ulmfit_lm_quickstart.py --workdir=LM
  python -m attention_zoo.sample --workdir=LM --prompt="The concert" --num_samples=3
"""

import ml_collections

from attention_zoo.configs.language import lstm_quickstart

MODEL = dict(
  name="ulmfit", d_model=96, d_hidden=192, num_layers=3, embedding_dropout=0.02, input_dropout=0.1,
  hidden_dropout=0.1, output_dropout=0.1, weight_dropout=0.2, rate_decay=1.0, unfreeze_every=0, dtype="float32",
  matmul_dtype="float32",
)  # fmt: skip


def get_config():
  config = lstm_quickstart.get_config()
  config.model = ml_collections.ConfigDict(MODEL).lock()
  config.optimizer.update(d_model=96)
  return config
