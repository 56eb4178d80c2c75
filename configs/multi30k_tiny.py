"""Transformer-Tiny on Multi30k, English-German, lower-cased and tokenised text (Wu et al. 2021, table of Multi30k).

  python -m attention_zoo.train    --config=configs/multi30k_tiny.py --config.data.dir=TEXT --workdir=DIR
  python -m attention_zoo.average  --workdir=DIR --last=10
  python -m attention_zoo.evaluate --workdir=DIR --checkpoint=average --split=test

TEXT holds {train,val,test_2016_flickr}.{en,de}. Hardware: two CPU cores with bfloat16 units,
11,000 to 13,000 tokens/s: about 100 minutes.
Paper: 41.02 tokenised lower-cased BLEU on test 2016 (about 8,000 updates of 2 x 4,096 tokens, beam 5).
Ours: 39.70 with as many tokens (last 10 checkpoints averaged, beam 5, alpha 1.6, the best of 0.6, 1.0, 1.3 and 1.6 on
val: 40.34, 40.55, 40.75, 40.98 there); 38.97 for the last checkpoint alone.
"""

from attention_zoo.configs import transformer_base


def get_config():
  config = transformer_base.get_config()
  config.model.update(
    d_model=128, d_ff=256, num_heads=4, d_k=32, d_v=32, num_encoder_layers=4, num_decoder_layers=4,
    dropout=0.3, dtype="float32",
  )  # fmt: skip
  config.data.update(
    source="text", train_split="train", dev_split="val", test_split="test_2016_flickr", tokenized=True,
    vocab_size=4096, normalization="identity", batch_tokens=4096, row_length=64, max_length=64,
  )  # fmt: skip
  config.optimizer.update(learning_rate=2.5, warmup_steps=2000)
  config.train.update(steps=16000, eval_every=500, checkpoint_every=250, keep=10)
  config.decode.update(beam_size=5, alpha=1.6)
  return config
