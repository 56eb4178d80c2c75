"""A small GPT, pretrained on the English sentences of the embedded phrasebook, from left to right. Minutes on two CPU
cores, no files, no network. Ours: not run.

  python -m attention_zoo.train  --config=configs/pretraining/gpt_quickstart.py --workdir=PRETRAINED
  python -m attention_zoo.sample --workdir=PRETRAINED --prompt="The concert" --num_samples=3

gpt_classification_quickstart.py begins with it by --config.train.init_from=PRETRAINED.
"""

import ml_collections

from attention_zoo.configs.language import quickstart

GPT = dict(
  name="gpt", d_model=128, d_ff=512, num_heads=4, d_k=32, d_v=32, num_layers=2, dropout=0.1, attention_dropout=0.1,
  residual="post", norm_epsilon=1e-5, bias=True, attention="dot_product", feed_forward="dense", activation="gelu_tanh",
  scale_embedding=False, output_bias=False, tied=True, positions="learned", position_mode="add", max_length=128,
  dtype="float32", matmul_dtype="float32", remat=False, scan_layers=False,
)  # fmt: skip


def get_config():
  config = quickstart.get_config()
  config.model = ml_collections.ConfigDict(GPT).lock()
  config.data.update(vocab_size=512, tokenizer="byte_bpe", row_length=64, batch_tokens=64 * 64)
  config.optimizer.update(
    name="adamw(b1=0.9, b2=0.999, eps=1e-8, weight_decay=0.01)", schedule="cosine(decay_steps=900, end_factor=0.0)",
    learning_rate=1e-3, warmup_steps=100, d_model=128, clip_norm=1.0,
  )  # fmt: skip
  config.train.update(steps=1000, eval_every=250, checkpoint_every=250)
  return config
