"""BERT-base (Devlin et al. 2018): 12 layers, width 768, hidden tokens and the next sentence, 109,482,240 parameters.

  python -m attention_zoo.train    --config=configs/pretraining/bert_base.py --config.data.dir=DIR --workdir=WORKDIR
  python -m attention_zoo.evaluate --workdir=WORKDIR --split=dev

DIR holds train.jsonl and dev.jsonl (or .jsonl.gz), a document a line in the field "text", its sentences on lines of
their own: Wikipedia and BooksCorpus, of which the second is not public any more. Paper: GLUE 79.6 on average (from
memory), tuned on each of its tasks. Ours: not run. Hardware: 16 chips of TPU for four days, says the paper. Settings
from the paper: a million steps of 256 rows of 512 tokens, Adam to 1e-4 in 10,000 steps and down a line to 0, weight
decay 0.01. Deviations: all rows have 512 tokens, where nine tenths of the paper's steps have rows of 128; those of the
model's and the task's files.
The published vocabulary is --config.data.vocabulary=vocab.txt.
"""

from attention_zoo.configs.pretraining import bert_quickstart

PAPER = {"glue": 79.6}


def get_config():
  config = bert_quickstart.get_config()
  config.model.update(
    d_model=768, d_ff=3072, num_heads=12, d_k=64, d_v=64, num_layers=12, max_length=512, dtype="bfloat16",
    matmul_dtype="bfloat16",
  )  # fmt: skip
  config.data.update(
    source="json_lines(field='text')", test_split="dev", vocab_size=30522, batch_tokens=256 * 512, row_length=512
  )
  config.optimizer.update(
    name="adamw(b1=0.9, b2=0.999, eps=1e-6, weight_decay=0.01)", schedule="linear(decay_steps=990_000)",
    learning_rate=1e-4, warmup_steps=10_000, d_model=768,
  )  # fmt: skip
  config.train.update(steps=1_000_000, eval_every=10_000, checkpoint_every=5000, log_every=100, keep=5)
  return config
