"""A Transformer with absolute positions on Bach's chorales, voice by voice: Huang et al. 2018 (arXiv:1809.04281).

  python -m attention_zoo.train    --config=configs/music/chorales_transformer.py --config.data.dir=FILE --workdir=DIR
  python -m attention_zoo.evaluate --workdir=DIR --split=test
  python -m attention_zoo.sample   --workdir=DIR --seconds=30 --output=out.mid

FILE is Jsb16thSeparated.json of github.com/czhuang/JSB-Chorales-dataset: 229 chorales to train on. Paper: 0.417 nats
a token on the validation split. Ours: not run. Hardware: one accelerator of 16 GB. Sizes from memory: 5 layers,
width 256, d_ff 1,024, 8 heads. Pieces in rows of 1,024 tokens, longer ones cut, in twelve keys around their own; the
paper does not say how it was optimised.
"""

from attention_zoo.configs.music import transformer


def get_config():
  config = transformer.get_config()
  config.model.update(d_model=256, d_ff=1024, num_heads=8, d_k=32, d_v=32, num_layers=5, dropout=0.3, max_length=1024)
  config.data.update(
    source="chorales", dev_split="valid", vocab_size=133, tokenizer="chorales", transpose=6, stretch=0.0,
    batching="packed", batch_tokens=8 * 1024, row_length=1024,
  )  # fmt: skip
  config.optimizer.update(learning_rate=1.0, warmup_steps=1000)
  config.train.update(steps=20_000, eval_every=500, checkpoint_every=500)
  config.decode.update(max_tokens=1023)
  return config
