"""RoBERTa (Liu et al. 2019): BERT-large's geometry on full sentences, masked anew each time, without the next sentence.

Commands as in bert_base.py; DIR holds 160 GB of text there. Paper: GLUE 88.5 on average (from memory). Ours: not run.
Hardware: 1,024 V100 for a day, says the paper. Settings from the paper (appendix A, from memory): 500,000 steps of
8,192 rows of 512 tokens, Adam to 4e-4 in 30,000 steps and down a line to 0, b2 0.98, eps 1e-6, weight decay 0.01.
Deviations: the vocabulary of 50,265 pieces of bytes is learnt from the text at hand.
"""

from attention_zoo.configs.pretraining import bert_large

PAPER = {"glue": 88.5}


def get_config():
  config = bert_large.get_config()
  config.model.update(num_types=1, norm_epsilon=1e-5, pooler=False)
  config.data.update(
    tokenizer="byte_bpe", vocab_size=50265, batching="full_sentences", separators=2, batch_tokens=8192 * 512
  )
  config.optimizer.update(
    name="adamw(b1=0.9, b2=0.98, eps=1e-6, weight_decay=0.01)", schedule="linear(decay_steps=470_000)",
    learning_rate=4e-4, warmup_steps=30_000, clip_norm=0.0,
  )  # fmt: skip
  config.train.update(steps=500_000)
  return config
