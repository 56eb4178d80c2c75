"""Sequence to sequence without attention, WMT14 English-French (Sutskever et al. 2014, Table 1): 30.59 BLEU of one
reversed LSTM with beam 12 in the paper, 34.81 of five together.

  python -m attention_zoo.train    --config=configs/seq2seq/sutskever_enfr.py --workdir=DIR
  python -m attention_zoo.evaluate --workdir=DIR --split=test

Hardware: 8 GPUs for about ten days in the paper. Ours: not run.
The paper took 12 million of the pairs (its epoch is 93,750 batches of 128) and words, 160,000 and 80,000; here word
pieces and the whole corpus. Its rates: 0.7, halved every half epoch after five of 7.5 epochs.
It divides the gradient of a batch by its sentences, and clips that at 5; here it is divided by the tokens, of which a
sentence is taken to have 25, so that the rate is 25 times as high and the bound 25 times as low.
What is said of the paper is from memory.
"""

from ml_collections import ConfigDict

from attention_zoo.configs import transformer_base_enfr


def get_config():
  config = transformer_base_enfr.get_config()
  # Another model has other fields, so that the group is replaced as a whole.
  config.model = ConfigDict(
    dict(
      name="sutskever",
      cell="lstm",  # or "rnn", "gru"
      d_model=1000,
      d_hidden=1000,
      num_layers=4,
      reverse_source=True,
      dropout=0.0,
      init_scale=0.08,
      dtype="float32",
      matmul_dtype="bfloat16",
    )
  ).lock()
  # Bucketed: a recurrence takes as many steps as a row is long.
  config.data.update(batching="bucketed", batch_tokens=4096)
  config.optimizer.update(
    name="sgd", schedule="stepwise(begin=468_750, decay_steps=46_875)", learning_rate=17.5, warmup_steps=0,
    clip_norm=0.2,
  )  # fmt: skip
  config.train.update(steps=703_125, label_smoothing=0.0)
  config.decode.update(beam_size=12, alpha=0.0)
  return config
