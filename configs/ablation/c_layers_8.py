"""Table 3, row (C): 8 + 8 layers. How to run it: base.py."""

from attention_zoo.configs.ablation import base

PAPER = dict(perplexity=4.88, bleu=25.5, params=80e6)


def get_config():
  config = base.get_config()
  config.model.update(num_encoder_layers=8, num_decoder_layers=8)
  return config
