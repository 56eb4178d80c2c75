"""The tagger of bilstm_crf_quickstart.py with ELMo, from the language model of bilm_quickstart.py,
which stays as it is. Minutes on two CPU cores, no files, no network. Ours: not run.

  python -m attention_zoo.train    --config=configs/pretraining/elmo_quickstart.py --workdir=DIR \\
      --config.train.init_from=BILM
  python -m attention_zoo.evaluate --workdir=DIR --split=test

Without init_from it is the control: a language model that has learnt nothing.
"""

import ml_collections

from attention_zoo.configs.pretraining import bilstm_crf_quickstart

LM = dict(
  lm_d_character=16, lm_filters=((1, 16), (2, 16), (3, 32), (4, 64)), lm_num_highway=1, lm_d_model=64,
  lm_d_hidden=128, lm_num_layers=2, lm_tuned=False,
)  # fmt: skip


def get_config():
  config = bilstm_crf_quickstart.get_config()
  fields = {**config.model.to_dict(), **LM, "name": "elmo", "lm_dropout": 0.3}
  config.model = ml_collections.ConfigDict(fields).lock()
  config.train.init_map = (("^bilm/", "core/"),)
  return config
