"""GPT-2 large (Radford et al. 2019): 36 layers, width 1,280, 20 heads, 774,030,080 parameters.

Commands, data and settings as in gpt2.py. Paper: 22.05 perplexity per word on WikiText-103, without having been trained
on it (from memory). Ours: not run. Hardware: the paper names none.
"""

from attention_zoo.configs.language import gpt2


def get_config():
  config = gpt2.get_config()
  config.model.update(d_model=1280, d_ff=5120, num_heads=20, num_layers=36)
  return config
