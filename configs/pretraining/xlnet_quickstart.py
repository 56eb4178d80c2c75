"""A small XLNet, pretrained on the English sentences of the embedded phrasebook, row after row with what it made of the
row before. Minutes on two CPU cores, no files, no network. Ours: not run.

  python -m attention_zoo.train    --config=configs/pretraining/xlnet_quickstart.py --workdir=PRETRAINED
  python -m attention_zoo.evaluate --workdir=PRETRAINED --split=test
"""

import ml_collections

from attention_zoo.configs.pretraining import bert_quickstart

XLNET = dict(
  name="xlnet", d_model=128, d_ff=512, num_heads=4, d_k=32, num_layers=2, dropout=0.1, attention_dropout=0.1,
  norm_epsilon=1e-12, activation="gelu", memory=64, dtype="float32", matmul_dtype="float32",
)  # fmt: skip


def get_config():
  config = bert_quickstart.get_config()
  with config.unlocked():
    config.task = "permutation_language_modeling"
    config.model = ml_collections.ConfigDict(XLNET)
    del config.data["mask_rate"], config.data["whole_words"]
    config.data.one_in = 6  # of so many tokens one is predicted
  config.data.update(source="phrasebook", batching="contiguous")
  return config
