"""LSTMs with mixtures of 2,048 experts, WMT14 English-French (Shazeer et al. 2017): 40.56 BLEU in the paper.

Ours: not run. Hardware: 64 K40 GPUs for six days in the paper (from memory). Commands and what differs as in
moe_lstm_ende.py.
"""

from attention_zoo.configs import transformer_base_enfr
from attention_zoo.configs.seq2seq import moe_lstm_ende


def get_config():
  config = moe_lstm_ende.get_config()
  french = transformer_base_enfr.get_config().data
  config.data.update(source=french.source, languages=french.languages)
  config.train.update(steps=300_000)
  return config
