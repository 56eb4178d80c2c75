"""The bidirectional language model of ELMo (Peters et al. 2018): 93.6 million parameters without its output.

  python -m attention_zoo.train    --config=configs/pretraining/bilm_1b.py --config.data.dir=DIR --workdir=BILM
  python -m attention_zoo.evaluate --workdir=BILM --split=dev

DIR holds the 1B Word Benchmark as folders train/ and dev/ of text files, a tokenised sentence a line. Paper: the mean
of the forward and backward perplexities is 39.7 after 10 epochs. Ours: not run. Hardware: not said in the paper.
Deviations: those of the model's file. The published code, from memory, has 793,471 words, three devices with 128 rows
of 20 words, and Adagrad, for which Adam stands here.
"""

from attention_zoo.configs.pretraining import bilm_quickstart

PAPER = {"perplexity": 39.7}


def get_config():
  config = bilm_quickstart.get_config()
  config.model.update(
    word_length=50, d_character=16,
    filters=((1, 32), (2, 32), (3, 64), (4, 128), (5, 256), (6, 512), (7, 1024)), num_highway=2, d_model=512,
    d_hidden=4096, num_layers=2, dropout=0.1, dtype="bfloat16", matmul_dtype="bfloat16",
  )  # fmt: skip
  config.data.update(
    source="text(documents='line')", vocab_size=793_471, marks=False, batch_tokens=3 * 128 * 20, row_length=60,
  )  # fmt: skip
  config.optimizer.update(
    schedule="constant", learning_rate=1e-3, warmup_steps=1000, d_model=512, clip_norm=10.0
  )
  config.train.update(steps=1_000_000, eval_every=10_000, checkpoint_every=10_000, log_every=100)
  return config
