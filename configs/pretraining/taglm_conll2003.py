"""TagLM (Peters et al. 2017) on CoNLL-2003's English part, with the language model of bilm_1b.py.

  python -m attention_zoo.train    --config=configs/pretraining/taglm_conll2003.py --workdir=DIR \\
      --config.data.dir=CONLL --config.train.init_from=BILM
  python -m attention_zoo.evaluate --workdir=DIR --split=test

Paper: 91.93 F1 on the test split, 90.87 without the language model. Ours: not run. Hardware: not said. CONLL as for
bilstm_crf_conll2003.py; deviations are those of the model's file.
"""

import ml_collections

from attention_zoo.configs.pretraining import elmo_conll2003

PAPER = {"F1": 91.93}


def get_config():
  config = elmo_conll2003.get_config()
  fields = {
    **config.model.to_dict(), "name": "taglm", "spelling": "gru", "d_character": 25, "d_spelling": 80, "cell": "gru",
    "d_hidden": 300, "dropout": 0.25, "lm_dropout": 0.0,
  }  # fmt: skip
  config.model = ml_collections.ConfigDict(fields).lock()
  return config
