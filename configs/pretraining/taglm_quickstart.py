"""The tagger of bilstm_crf_quickstart.py as TagLM: two layers, the second of which reads the
language model of bilm_quickstart.py, which stays as it is. Minutes on two CPU cores, no files, no network.
Ours: not run.

  python -m attention_zoo.train    --config=configs/pretraining/taglm_quickstart.py --workdir=DIR \\
      --config.train.init_from=BILM
  python -m attention_zoo.evaluate --workdir=DIR --split=test
"""

import ml_collections

from attention_zoo.configs.pretraining import elmo_quickstart


def get_config():
  config = elmo_quickstart.get_config()
  fields = {**config.model.to_dict(), "name": "taglm", "num_layers": 2, "lm_dropout": 0.0}
  config.model = ml_collections.ConfigDict(fields).lock()
  return config
