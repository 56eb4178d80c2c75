"""A small GPT that tells of each sentence of the embedded phrasebook which kind of value comes last, read off its last
token, while it goes on predicting the text with half the weight. A minute on two CPU cores, no files, no network.

  python -m attention_zoo.train    --config=configs/pretraining/gpt_classification_quickstart.py --workdir=DIR
  python -m attention_zoo.evaluate --workdir=DIR --split=test

With --config.train.init_from=PRETRAINED, the work directory of gpt_quickstart.py, it begins with what that has learnt.
"""

import ml_collections

from attention_zoo.configs.pretraining import classification_quickstart, gpt_quickstart


def get_config():
  config = classification_quickstart.get_config()
  config.model = ml_collections.ConfigDict(gpt_quickstart.GPT).lock()
  config.data.update(tokenizer="byte_bpe")
  config.head.update(pooling="last")
  config.train.update(language_model_weight=0.5)
  return config
