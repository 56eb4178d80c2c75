"""Shakespeare, character by character: a decoder-only Transformer on tinyshakespeare (1.1 MB, 65 characters),
on two CPU cores.

  python -m attention_zoo.train --config=configs/language/shakespeare_char.py --config.data.dir=input.txt --workdir=DIR
  python -m attention_zoo.evaluate --workdir=DIR --split=dev
  python -m attention_zoo.sample --workdir=DIR --prompt="ROMEO:" --max_tokens=400 --temperature=0.8

The first 90 % of the file are trained on, the rest is dev, as in nanoGPT, whose CPU setting (4 layers, width 128, 64
characters of context, 2,000 steps) ends at 1.88 nats a character and whose GPU setting at 1.47.

ALiBi, because a sample is longer than the 128 characters of a row: with rotary positions the loss ends lower, at 1.495,
but what is sampled behind those 128 is no English any more.
Ours: 1.587 after 1,500 steps and 1.550 after 2,000, on two cores that did other work besides (with rotary positions
1.602 after 1,000, 11 minutes); by the 7,400 tokens/s of its first hundred steps, alone, all 2,500
take 23 minutes.
"""

from attention_zoo.configs.language import lm1b_base


def get_config():
  config = lm1b_base.get_config()
  config.model.update(
    d_model=128, d_ff=512, num_heads=4, d_k=32, d_v=32, num_layers=4, dropout=0.05, activation="gelu",
    attention="alibi", positions="none", dtype="float32", matmul_dtype="float32",
  )  # fmt: skip
  config.data.update(
    source="text", dev_split="dev", test_split="dev", vocab_size=69, tokenizer="characters", batching="windows",
    batch_tokens=4096, row_length=128,
  )  # fmt: skip
  config.optimizer.update(
    name="adamw(b1=0.9, b2=0.99, weight_decay=0.1)", schedule="cosine(decay_steps=2400, end_factor=0.1)",
    learning_rate=3e-3, warmup_steps=100, clip_norm=1.0,
  )  # fmt: skip
  config.train.update(steps=2500, eval_every=500, checkpoint_every=250, log_every=100, keep=3)
  config.decode.update(max_tokens=400, temperature=0.8)
  return config
