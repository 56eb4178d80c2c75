"""CoVe (McCann et al. 2017) on the sentences of the Stanford Sentiment Treebank with two classes.

  python -m attention_zoo.train    --config=configs/pretraining/cove_sst2.py --workdir=DIR --config.data.dir=SST \\
      --config.train.init_from=TRANSLATION
  python -m attention_zoo.evaluate --workdir=DIR --split=test

SST holds train.txt, dev.txt and test.txt (or .txt.gz), 0 or 1 and the sentence a line; TRANSLATION is a run of
configs/seq2seq/bahdanau_enfr.py. Paper: 90.3 %. Ours: not run. Hardware: not said. Deviations: those of the model's
file.
"""

from attention_zoo.configs.pretraining import cove_quickstart

PAPER = {"accuracy": 90.3}


def get_config():
  config = cove_quickstart.get_config()
  config.model.update(d_embedding=620, d_encoder=1000, d_hidden=300)
  config.data.update(
    source="tsv(columns=('label', 'text'), separator=' ')", labels=("0", "1"), train_split="train", dev_split="dev",
    test_split="test", vocab_size=30_000, batch_tokens=64 * 64, row_length=64,
  )  # fmt: skip
  config.optimizer.update(schedule="linear(decay_steps=2_100)", learning_rate=1e-3, warmup_steps=60)
  config.train.update(steps=2_160, eval_every=108, checkpoint_every=108, log_every=50)
  return config
