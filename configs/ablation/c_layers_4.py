"""Table 3, row (C): 4 + 4 layers. How to run it: base.py."""

from attention_zoo.configs.ablation import base

PAPER = dict(perplexity=5.19, bleu=25.3, params=50e6)


def get_config():
  config = base.get_config()
  config.model.update(num_encoder_layers=4, num_decoder_layers=4)
  return config
