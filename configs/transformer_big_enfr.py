"""Transformer big, WMT14 English-French (Table 2): 41.8 BLEU in the paper, dropout 0.1; ours: not run.

Commands as in transformer_big.py.
"""

from attention_zoo.configs import transformer_base_enfr, transformer_big


def get_config():
  config = transformer_big.get_config()
  config.model.dropout = 0.1
  config.data = transformer_base_enfr.get_config().data
  return config
