"""GPT-2 xl (Radford et al. 2019): 48 layers, width 1,600, 25 heads, 1,557,611,200 parameters.

Commands, data and settings as in gpt2.py. Paper: 17.48 perplexity per word on WikiText-103, without having been trained
on it (from memory). Ours: not run. Hardware: the paper names none.
"""

from attention_zoo.configs.language import gpt2


def get_config():
  config = gpt2.get_config()
  config.model.update(d_model=1600, d_ff=6400, num_heads=25, num_layers=48)
  return config
