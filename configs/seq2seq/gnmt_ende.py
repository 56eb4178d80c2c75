"""GNMT, WMT14 English-German (Wu et al. 2016, Table 5): 24.61 BLEU in the paper, 24.60 after reinforcement learning.

  python -m attention_zoo.train    --config=configs/seq2seq/gnmt_ende.py --workdir=DIR
  python -m attention_zoo.evaluate --workdir=DIR --split=test

Hardware: 96 Tesla K80 in the paper. Ours: not run.
The paper took 32,000 word pieces, 128 sentences in a batch of each of 12 replicas, and, after 60,000 steps of Adam at
0.0002, SGD; here Adam alone, in one batch for all. The number of steps is ours.
What is said of the paper is from memory.
"""

from ml_collections import ConfigDict

from attention_zoo.configs import transformer_base


def get_config():
  config = transformer_base.get_config()
  # Another model has other fields, so that the group is replaced as a whole.
  config.model = ConfigDict(
    dict(
      name="gnmt",
      d_model=1024,
      d_hidden=1024,
      d_attention=1024,
      num_layers=8,
      dropout=0.2,
      init_scale=0.04,
      dtype="float32",
      matmul_dtype="bfloat16",
    )
  ).lock()
  # Bucketed: a recurrence takes as many steps as a row is long.
  config.data.update(vocab_size=32000, batching="bucketed", batch_tokens=49152)
  config.optimizer.update(
    name="adam", schedule="stepwise(begin=150_000, decay_steps=25_000)", learning_rate=2e-4, warmup_steps=0,
    clip_norm=5.0,
  )  # fmt: skip
  config.train.update(steps=250_000, label_smoothing=0.0)
  config.decode.update(beam_size=8, alpha=0.2, coverage_penalty=0.2)
  return config
