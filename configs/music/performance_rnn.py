"""Performance RNN on piano performances: three LSTM layers (Simon and Oore 2017; Huang et al. 2018, arXiv:1809.04281).

Commands and data as in transformer.py. Paper: 1.969 nats an event for three layers of 1,024 units, on the
Piano-e-Competition's performances (units from memory). Ours: not run. Hardware: one accelerator of 16 GB. Each row
reads on where it stopped in the batch before, 64 rows of 512 events; Adam at 1e-3 and gradients clipped at 3 as in
Magenta's code (from memory). No stretching: such rows have a fixed length.
"""

from ml_collections import ConfigDict

from attention_zoo.configs.music import transformer


def get_config():
  config = transformer.get_config()
  config.model = ConfigDict(
    dict(
      name="performance_rnn", d_model=512, d_hidden=1024, num_layers=3, dropout=0.1, tied=False, dtype="bfloat16",
      matmul_dtype="bfloat16",
    )  # fmt: skip
  ).lock()
  config.data.update(stretch=0.0, batching="contiguous", batch_tokens=64 * 512, row_length=512)
  config.optimizer.update(
    d_model=512, name="adam", schedule="constant", learning_rate=1e-3, warmup_steps=500, clip_norm=3.0
  )
  config.train.update(steps=100_000)
  return config
