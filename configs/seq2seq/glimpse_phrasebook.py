"""The glimpse model on the embedded phrasebook: no files, no network.

  python -m attention_zoo.train    --config=configs/seq2seq/glimpse_phrasebook.py --workdir=DIR
  python -m attention_zoo.average  --workdir=DIR --last=5
  python -m attention_zoo.evaluate --workdir=DIR --checkpoint=average --split=test
  python -m attention_zoo.evaluate --workdir=DIR --split=test \
      --decode.search="stochastic_beam(segment_length=5, temperature=0.7)"

Two layers of 192 units, glimpses of 10 pieces. Hardware: two CPU cores. Ours: not run. Evaluated with beam search;
the paper's stochastic one is for conversations, where there is more than one good answer.
"""

from ml_collections import ConfigDict

from attention_zoo.configs.seq2seq import bahdanau_phrasebook


def get_config():
  config = bahdanau_phrasebook.get_config()
  config.model = ConfigDict(
    dict(
      name="glimpse",
      d_model=128,
      d_hidden=192,
      num_layers=2,
      glimpse=10,
      dropout=0.1,
      init_scale=0.2,
      dtype="float32",
      matmul_dtype="float32",
    )
  ).lock()
  config.data.update(batching="packed", batch_tokens=2048)
  config.optimizer.update(schedule="cosine(decay_steps=850, end_factor=0.05)", learning_rate=3e-3)
  config.train.update(steps=900)
  return config
