"""RNNsearch (Bahdanau attention) on the embedded phrasebook: no files, no network.

  python -m attention_zoo.train    --config=configs/seq2seq/bahdanau_phrasebook.py --workdir=DIR
  python -m attention_zoo.average  --workdir=DIR --last=5
  python -m attention_zoo.evaluate --workdir=DIR --checkpoint=average --split=test

One layer of 192 units each way. Hardware: two CPU cores. Ours: 99.61 sacreBLEU on
test (average of five), 23 minutes beside other work.
"""

from ml_collections import ConfigDict

from attention_zoo.configs import quickstart


def get_config():
  config = quickstart.get_config()
  # Another model has other fields, so that the group is replaced as a whole.
  config.model = ConfigDict(
    dict(
      name="bahdanau",
      d_model=128,
      d_hidden=192,
      d_attention=128,
      d_maxout=128,
      dropout=0.1,
      init_scale=0.08,
      dtype="float32",
      matmul_dtype="float32",
    )
  ).lock()
  config.data.update(batching="bucketed")
  config.optimizer.update(
    name="adam", schedule="cosine(decay_steps=800, end_factor=0.05)", learning_rate=2e-3, warmup_steps=50, clip_norm=1.0
  )
  config.train.update(steps=800)
  return config
