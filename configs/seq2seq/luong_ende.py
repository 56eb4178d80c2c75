"""Local attention with predictive alignment, WMT14 English-German (Luong et al. 2015, Table 1): 19.0 BLEU of one model
in the paper, 20.9 with unknown words replaced, 23.0 of eight together.

  python -m attention_zoo.train    --config=configs/seq2seq/luong_ende.py --workdir=DIR
  python -m attention_zoo.evaluate --workdir=DIR --split=test

Hardware: one Tesla K40 for 7 to 10 days in the paper. Ours: not run.
The paper took sentences of up to 50 words, 128 in a batch (35,000 batches an epoch), and 50,000 words of each language;
here word pieces. Its rates with dropout: 1, halved every epoch after eight of twelve.
It divides the gradient of a batch by its sentences, and clips that at 5; here it is divided by the tokens, of which a
sentence is taken to have 25, so that the rate is 25 times as high and the bound 25 times as low.
What is said of the paper is from memory.
"""

from ml_collections import ConfigDict

from attention_zoo.configs import transformer_base


def get_config():
  config = transformer_base.get_config()
  # Another model has other fields, so that the group is replaced as a whole.
  config.model = ConfigDict(
    dict(
      name="luong",
      d_model=1000,
      d_hidden=1000,
      num_layers=4,
      attention="local-p",  # or "global", "local-m"
      score="general",  # or "dot", "concat"
      window=10,
      input_feeding=True,
      reverse_source=True,
      dropout=0.2,
      init_scale=0.1,
      dtype="float32",
      matmul_dtype="bfloat16",
    )
  ).lock()
  # Bucketed: a recurrence takes as many steps as a row is long.
  config.data.update(
    vocab_size=50000, batching="bucketed", batch_tokens=4096, row_length=64, max_length=64, too_long="skip"
  )
  config.optimizer.update(
    name="sgd", schedule="stepwise(begin=280_000, decay_steps=35_000)", learning_rate=25.0, warmup_steps=0,
    clip_norm=0.2,
  )  # fmt: skip
  config.train.update(steps=420_000, label_smoothing=0.0)
  config.decode.update(beam_size=10, alpha=0.0)
  return config
