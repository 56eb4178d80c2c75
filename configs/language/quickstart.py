"""A small language model of the embedded phrasebook's English sentences: minutes on two CPU cores,
no files, no network. 3 minutes 20 seconds on two cores of an AMD EPYC.

  python -m attention_zoo.train  --config=configs/language/quickstart.py --workdir=DIR
  python -m attention_zoo.sample --workdir=DIR --prompt="The concert" --num_samples=3
"""

from attention_zoo.configs.language import lm1b_base


def get_config():
  config = lm1b_base.get_config()
  config.model.update(
    d_model=128, d_ff=512, num_heads=4, d_k=32, d_v=32, num_layers=2, dtype="float32", matmul_dtype="float32",
  )  # fmt: skip
  config.data.update(
    source="phrasebook", dev_split="dev", vocab_size=1024, tokenizer="bpe", split_digits=True,
    batch_tokens=4096, row_length=128,
  )  # fmt: skip
  config.optimizer.update(learning_rate=2.0, warmup_steps=200)
  config.train.update(steps=400, eval_every=200, checkpoint_every=100, log_every=50)
  config.decode.update(max_tokens=48)
  return config
