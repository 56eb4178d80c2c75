"""A small BERT, pretrained on the English sentences of the embedded phrasebook: hidden tokens, and whether the second
part of a row belongs to the first. Minutes on two CPU cores, no files, no network. Ours: not run.

  python -m attention_zoo.train    --config=configs/pretraining/bert_quickstart.py --workdir=PRETRAINED
  python -m attention_zoo.evaluate --workdir=PRETRAINED --split=test

classification_quickstart.py and tagging_quickstart.py begin with it by --config.train.init_from=PRETRAINED; taggers
want one that was pretrained with --config.data.lower=False.
"""

import ml_collections

from attention_zoo.configs.pretraining import classification_quickstart


def get_config():
  config = classification_quickstart.get_config()
  with config.unlocked():
    config.task = "masked_language_modeling"
    del config.head, config.data["labels"], config.train["language_model_weight"]
    config.data.update(
      ml_collections.ConfigDict(
        dict(
          source="phrasebook(together=8)",  # documents of eight sentences of one frame
          batching="sentence_pairs",  # or "full_sentences": one segment, as RoBERTa
          mask_rate=0.15, whole_words=False,
        )
      )
    )  # fmt: skip
  config.data.update(batch_tokens=64 * 64, row_length=64)
  config.optimizer.update(schedule="linear(decay_steps=900)", learning_rate=1e-3, warmup_steps=100)
  config.train.update(steps=1000, eval_every=250, checkpoint_every=250, log_every=50, best_metric="", best_mode="min")
  return config
