"""Relative positions instead of sinusoids, big, WMT14 English-German (Shaw et al. 2018, Table 1).

  python -m attention_zoo.train    --config=configs/transformer_big_relative.py --workdir=DIR
  python -m attention_zoo.average  --workdir=DIR --last=20
  python -m attention_zoo.evaluate --workdir=DIR --checkpoint=average --split=test

Hardware: 8 P100 in the paper. Paper: 29.2 BLEU on newstest2014 against 27.9 with sinusoids, and on WMT14 English-French
(with --config.data.source="tfds(name='wmt14_translate/fr-en')" --config.data.languages="('en', 'fr')"
--config.model.dropout=0.1) 41.5 against 41.2. Settings from the paper: k = 8, one table for the heads of a
layer. Ours: not run.
"""

from attention_zoo.configs import transformer_big


def get_config():
  config = transformer_big.get_config()
  relative = "shaw(max_distance=8)"
  config.model.update(encoder_attention=relative, decoder_attention=relative, positions="none")
  config.train.update(keep=20)
  return config
