"""Relative positions instead of sinusoids, base, WMT14 English-German (Shaw et al. 2018, Table 1).

  python -m attention_zoo.train    --config=configs/transformer_base_relative.py --workdir=DIR
  python -m attention_zoo.evaluate --workdir=DIR --checkpoint=latest --split=test

Hardware: 8 K40 in the paper. Paper: 26.8 BLEU on newstest2014 against 26.5 with sinusoids (no checkpoint averaging; the
control is this file with --config.model.encoder_attention=dot_product, decoder_attention=dot_product and
positions=sinusoidal). Settings from the paper: d_ff 1,024, k = 16, tables for each layer and head. Ours: not run.
"""

from attention_zoo.configs import transformer_base


def get_config():
  config = transformer_base.get_config()
  relative = "shaw(max_distance=16, shared=False)"
  config.model.update(d_ff=1024, encoder_attention=relative, decoder_attention=relative, positions="none")
  return config
