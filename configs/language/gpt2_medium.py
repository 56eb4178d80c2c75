"""GPT-2 medium (Radford et al. 2019): 24 layers, width 1,024, 16 heads, 354,823,168 parameters.

Commands, data and settings as in gpt2.py. Paper: 26.37 perplexity per word on WikiText-103, without having been trained
on it (from memory). Ours: not run. Hardware: the paper names none.
"""

from attention_zoo.configs.language import gpt2


def get_config():
  config = gpt2.get_config()
  config.model.update(d_model=1024, d_ff=4096, num_heads=16, num_layers=24)
  return config
