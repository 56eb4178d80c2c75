"""GNMT, WMT14 English-French (Wu et al. 2016, Table 4): 38.95 BLEU in the paper, 39.92 after reinforcement learning.

Ours: not run. Hardware, commands and what differs as in gnmt_ende.py.
"""

from attention_zoo.configs import transformer_base_enfr
from attention_zoo.configs.seq2seq import gnmt_ende


def get_config():
  config = gnmt_ende.get_config()
  french = transformer_base_enfr.get_config().data
  config.data.update(source=french.source, languages=french.languages)
  return config
