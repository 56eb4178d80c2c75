"""RNNsearch-50, WMT14 English-French (Bahdanau et al. 2015, Table 1): 26.75 BLEU in the paper, 28.45 trained longer.

  python -m attention_zoo.train    --config=configs/seq2seq/bahdanau_enfr.py --workdir=DIR
  python -m attention_zoo.evaluate --workdir=DIR --split=test

Hardware: one GPU for 5 days in the paper. Ours: not run.
The paper took sentences of up to 50 words, 80 in a batch, 30,000 words of each language, 348 million words of the
corpus, and Adadelta; here Adam, word pieces (30,000 for both) and the whole corpus.
What is said of the paper is from memory.
"""

from ml_collections import ConfigDict

from attention_zoo.configs import transformer_base_enfr


def get_config():
  config = transformer_base_enfr.get_config()
  # Another model has other fields, so that the group is replaced as a whole.
  config.model = ConfigDict(
    dict(
      name="bahdanau",
      d_model=620,
      d_hidden=1000,
      d_attention=1000,
      d_maxout=500,
      dropout=0.0,
      init_scale=0.01,
      dtype="float32",
      matmul_dtype="bfloat16",
    )
  ).lock()
  # Bucketed: a recurrence takes as many steps as a row is long.
  config.data.update(vocab_size=30000, batching="bucketed", batch_tokens=4096, row_length=64, max_length=64)
  config.data.update(too_long="skip")
  config.optimizer.update(name="adam", schedule="constant", learning_rate=5e-4, warmup_steps=0, clip_norm=1.0)
  config.train.update(steps=288_000, label_smoothing=0.0)
  config.decode.update(beam_size=12, alpha=0.0)
  return config
