"""ELMo's tagger (Peters et al. 2018) on CoNLL-2003's English part, with the language model of bilm_1b.py.

  python -m attention_zoo.train    --config=configs/pretraining/elmo_conll2003.py --workdir=DIR \\
      --config.data.dir=CONLL --config.train.init_from=BILM
  python -m attention_zoo.evaluate --workdir=DIR --split=test

Paper: 92.22 F1 on the test split, 90.15 without ELMo. Ours: not run. Hardware: not said. CONLL as for
bilstm_crf_conll2003.py; deviations are those of the model's file.
"""

import ml_collections

from attention_zoo.configs.pretraining import bilstm_crf_conll2003, elmo_quickstart

PAPER = {"F1": 92.22}


def get_config():
  config = bilstm_crf_conll2003.get_config()
  fields = {
    **config.model.to_dict(), **elmo_quickstart.LM, "name": "elmo", "d_word": 50, "spelling": "cnn",
    "d_character": 16, "d_spelling": 128, "d_hidden": 200, "num_layers": 2, "lm_num_highway": 2, "lm_d_model": 512,
    "lm_d_hidden": 4096, "lm_filters": ((1, 32), (2, 32), (3, 64), (4, 128), (5, 256), (6, 512), (7, 1024)),
    "lm_dropout": 0.5,
  }  # fmt: skip
  config.model = ml_collections.ConfigDict(fields).lock()
  config.train.init_map = (("^bilm/", "core/"),)
  return config
