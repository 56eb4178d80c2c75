"""ConvS2S, WMT14 English-French: Gehring et al. 2017, arXiv:1705.03122, section 5.1; 40.46 BLEU there; ours: not run.

The paper says 15 layers and lists the widths of 14 (five of 512): here six of 512, as the authors' code. Hardware: 8
GPUs for about 37 days in the paper, with 32 sentences on each. Commands as in conv_s2s_ende.py.
"""

from attention_zoo.configs.translation import conv_s2s_ende


def get_config():
  config = conv_s2s_ende.get_config()
  config.model.update(
    widths=(512,) * 6 + (768,) * 4 + (1024,) * 3 + (2048, 4096), kernel_sizes=(3,) * 13 + (1, 1), dropout=0.1
  )
  config.data.update(source="tfds(name='wmt14_translate/fr-en')", languages=("en", "fr"), batch_tokens=8192)
  return config
