"""A small Transformer on the embedded phrasebook, English-German: minutes on two CPU cores, no files, no network.

  python -m attention_zoo.train    --config=configs/quickstart.py --workdir=DIR
  python -m attention_zoo.average  --workdir=DIR --last=5
  python -m attention_zoo.evaluate --workdir=DIR --checkpoint=average --split=test
"""

from attention_zoo.configs import transformer_base


def get_config():
  config = transformer_base.get_config()
  config.model.update(
    d_model=128, d_ff=512, num_heads=4, d_k=32, d_v=32, num_encoder_layers=2, num_decoder_layers=2,
    dtype="float32",
  )  # fmt: skip
  config.data.update(
    source="phrasebook", dev_split="dev", vocab_size=2048, split_digits=True,
    batch_tokens=4096, row_length=64, max_length=40,
  )  # fmt: skip
  config.optimizer.update(learning_rate=0.006, schedule="cosine(decay_steps=400, end_factor=0.05)", warmup_steps=100)
  config.train.update(steps=500, eval_every=100, checkpoint_every=20, keep=5, log_every=20)
  return config
