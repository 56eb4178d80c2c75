"""An LSTM on the embedded phrasebook's English sentences,
read from beginning to end with its state handed from batch to batch.

  python -m attention_zoo.train  --config=configs/language/lstm_quickstart.py --workdir=DIR
  python -m attention_zoo.sample --workdir=DIR --prompt="The concert" --num_samples=3

Zaremba et al. 2014 (arXiv:1409.2329): two layers of 650 units have 82.7 perplexity on Penn Treebank's test split. Ours:
not run there. Here two layers of 128 units. Hardware: two CPU cores.
"""

import ml_collections

from attention_zoo.configs.language import quickstart


def get_config():
  config = quickstart.get_config()
  # Another model has other fields, so that the group is replaced as a whole.
  config.model = ml_collections.ConfigDict(
    dict(
      name="lstm_lm", d_model=128, d_hidden=128, num_layers=2, dropout=0.1, tied=True, dtype="float32",
      matmul_dtype="float32",
    )  # fmt: skip
  ).lock()
  config.data.update(batching="contiguous", batch_tokens=4096, row_length=64)
  config.optimizer.update(
    d_model=128, schedule="cosine(decay_steps=600, end_factor=0.1)", learning_rate=3e-3, clip_norm=1.0
  )
  config.train.update(steps=600)
  return config
