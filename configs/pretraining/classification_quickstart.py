"""A small BERT, not pretrained, that tells of each sentence of the embedded phrasebook which kind of value comes last:
a minute on two CPU cores, no files, no network. Ours: not run.

  python -m attention_zoo.train    --config=configs/pretraining/classification_quickstart.py --workdir=DIR
  python -m attention_zoo.evaluate --workdir=DIR --split=test

With --config.train.init_from=PRETRAINED, the work directory of bert_quickstart.py, it begins with what that has learnt.
It is the base of the other configs of encoders.
"""

import ml_collections

from attention_zoo.configs.language import lm1b_base

BERT = dict(
  name="bert", d_model=128, d_ff=512, num_heads=4, d_k=32, d_v=32, num_layers=2, dropout=0.1, attention_dropout=0.1,
  residual="post", norm_epsilon=1e-12, bias=True, attention="dot_product", feed_forward="dense", activation="gelu",
  scale_embedding=False, output_bias=False, positions="learned", position_mode="add", max_length=128, num_types=2,
  pooler=True, dtype="float32", matmul_dtype="float32", remat=False, scan_layers=False,
)  # fmt: skip


def get_config():
  config = lm1b_base.get_config()
  with config.unlocked():
    config.task = "classification"
    config.model = ml_collections.ConfigDict(BERT)
    del config.data["batching"]
    config.data.labels = ("DATE", "TIME", "PLACE", "PERSON", "NUMBER", "MONEY", "MEASURE", "LANGUAGE", "THING")
    config.data.separators = 1  # </s> between two sentences
    config.data.lower = True  # whether word pieces are of text made lower-case, without accents
    config.data.vocabulary = ""  # a published vocab.txt; "": it is learnt, or taken from the run of train.init_from
    config.head = ml_collections.ConfigDict(dict(pooling="pooler", width=0, dropout=0.1))
    config.train.language_model_weight = 0.0
    config.decode = ml_collections.ConfigDict(dict(batch_tokens=8192))
  config.data.update(
    source="phrasebook(kind='type', most=2000)", dev_split="dev", test_split="test", vocab_size=512,
    tokenizer="wordpiece", batch_tokens=32 * 64, row_length=64,
  )  # fmt: skip
  config.optimizer.update(
    name="adamw(b1=0.9, b2=0.999, eps=1e-6, weight_decay=0.01)", schedule="linear(decay_steps=180)",
    learning_rate=1e-3, warmup_steps=20, d_model=128, clip_norm=1.0,
  )  # fmt: skip
  config.train.update(
    steps=200, label_smoothing=0.0, eval_every=100, checkpoint_every=100, log_every=50, keep=2, best_metric="accuracy",
    best_mode="max",
  )  # fmt: skip
  return config
