"""ULMFiT's third run (Howard and Ruder 2018): reviews of IMDb are good or bad.

  python -m attention_zoo.train    --config=configs/pretraining/ulmfit_imdb.py --config.data.dir=DIR \\
      --config.train.init_from=LM --workdir=WORKDIR
  python -m attention_zoo.evaluate --workdir=WORKDIR --split=test

DIR holds folders train/ and test/ with pos/ and neg/, as the data set comes. LM: ulmfit_wikitext103.py, tuned to the
reviews. Paper: 4.6 % errors, the mean of a forward and a backward model. Ours: not run. Hardware: not said. Settings of
the paper: 64 rows, learning rate 0.01, a hidden layer of 50, each layer 1 / 2.6 of the one above it and unfrozen an
epoch after it. Reviews are cut to 400 pieces.
"""

import ml_collections

from attention_zoo.configs.pretraining import ulmfit_quickstart, ulmfit_wikitext103

PAPER = {"errors": 4.6}


def get_config():
  config = ulmfit_quickstart.get_config()
  fields = {**ulmfit_wikitext103.get_config().model.to_dict(), "rate_decay": 2.6, "unfreeze_every": 390}
  config.model = ml_collections.ConfigDict(fields).lock()
  config.data.update(
    source="folders", train_split="train", dev_split="test", test_split="test", labels=("neg", "pos"),
    vocab_size=30_000, batch_tokens=64 * 400, row_length=400,
  )  # fmt: skip
  config.optimizer.update(schedule="slanted_triangular(total_steps=5_500)", learning_rate=0.01, d_model=400)
  config.train.update(steps=5_500, eval_every=390, checkpoint_every=390, log_every=50)
  return config
