"""A small BERT, not pretrained, that finds dates, places, numbers and other values in the sentences of the embedded
phrasebook: minutes on two CPU cores, no files, no network. Ours: not run.

  python -m attention_zoo.train    --config=configs/pretraining/tagging_quickstart.py --workdir=DIR
  python -m attention_zoo.evaluate --workdir=DIR --split=test

With --config.train.init_from=PRETRAINED, the work directory of bert_quickstart.py, it begins with what that has learnt.
Names are told by their capitals, so text is not made lower-case: pretrain with --config.data.lower=False.
"""

import ml_collections

from attention_zoo.configs.pretraining import classification_quickstart


def get_config():
  config = classification_quickstart.get_config()
  with config.unlocked():
    config.task = "tagging"
    config.head = ml_collections.ConfigDict(dict(name="softmax", dropout=0.1))
    del config.train["language_model_weight"]
    del config.train["label_smoothing"]
  config.data.update(source="phrasebook(most=2000)", lower=False)
  config.model.pooler = False  # of a whole row: not asked for
  config.train.update(best_metric="f1")
  return config
