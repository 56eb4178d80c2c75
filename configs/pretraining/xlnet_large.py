"""XLNet-large (Yang et al. 2019): 24 layers, width 1,024, predictions in random orders with a memory of 384 tokens.

  python -m attention_zoo.train    --config=configs/pretraining/xlnet_large.py --config.data.dir=DIR --workdir=WORKDIR
  python -m attention_zoo.evaluate --workdir=WORKDIR --split=dev

DIR as in bert_base.py; 126 GB of text there. Paper: RACE 81.75 accuracy (from memory). Ours: not run. Hardware: 512
chips of TPU v3 for 2.5 days, says the paper. Settings from the paper (from memory): 500,000 steps of 2,048 rows of 512
tokens, Adam to 4e-4 in 40,000 steps and down a line to 0, one token of six predicted.
Deviations: those of the model's file; among them, a row is a window of text and not two segments, so that <s> and the
vector for another segment are not pretrained. The tokens of a row are drawn one by one, not in spans.
"""

import ml_collections

from attention_zoo.configs.pretraining import bert_base, xlnet_quickstart

PAPER = {"race": 81.75}


def get_config():
  base, config = bert_base.get_config(), xlnet_quickstart.get_config()
  with config.unlocked():
    config.train, config.optimizer = base.train, base.optimizer
    config.model = ml_collections.ConfigDict(
      xlnet_quickstart.XLNET
      | dict(
        d_model=1024, d_ff=4096, num_heads=16, d_k=64, num_layers=24, memory=384, dtype="bfloat16",
        matmul_dtype="bfloat16",
      )
    )  # fmt: skip
  config.data.update(
    source="json_lines(field='text')", test_split="dev", vocab_size=32000, tokenizer="unigram", row_length=512,
    batch_tokens=2048 * 512,
  )  # fmt: skip
  config.optimizer.update(schedule="linear(decay_steps=460_000)", learning_rate=4e-4, warmup_steps=40_000, d_model=1024)
  config.train.update(steps=500_000)
  return config
