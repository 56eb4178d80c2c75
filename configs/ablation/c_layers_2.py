"""Table 3, row (C): 2 + 2 layers. How to run it: base.py."""

from attention_zoo.configs.ablation import base

PAPER = dict(perplexity=6.11, bleu=23.7, params=36e6)


def get_config():
  config = base.get_config()
  config.model.update(num_encoder_layers=2, num_decoder_layers=2)
  return config
