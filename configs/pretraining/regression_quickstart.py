"""A small BERT, not pretrained, that tells how many words a sentence of the embedded phrasebook has: no files, no
network. Ours: not run.

  python -m attention_zoo.train    --config=configs/pretraining/regression_quickstart.py --workdir=DIR
  python -m attention_zoo.evaluate --workdir=DIR --split=test

Numbers of one's own stand where labels do: a column of a TSV file, a field of JSON lines.
"""

from attention_zoo.configs.pretraining import classification_quickstart


def get_config():
  config = classification_quickstart.get_config()
  with config.unlocked():
    config.task = "regression"
    del config.data["labels"]
    del config.train["label_smoothing"]
  config.data.update(source="phrasebook(kind='words', most=2000)")
  config.train.update(best_metric="squared_error", best_mode="min")
  return config
