"""Transformer base, WMT14 English-French (Table 2): 38.1 BLEU in the paper; ours: not run.

The paper's 32,000 word pieces; commands as in transformer_base.py.
"""

from attention_zoo.configs import transformer_base


def get_config():
  config = transformer_base.get_config()
  config.data.update(source="tfds(name='wmt14_translate/fr-en')", languages=("en", "fr"), vocab_size=32000)
  return config
