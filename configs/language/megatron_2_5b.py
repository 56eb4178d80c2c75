"""Megatron-LM (Shoeybi et al. 2019), 2.5 billion parameters: 54 layers, width 1,920, 20 heads; over 2 devices.

Commands, data and settings as in megatron_8_3b.py. Paper: no perplexity of this size. Ours: not run.
Hardware: 128 V100.
"""

from attention_zoo.configs.language import megatron_8_3b

PAPER = {"gpus": 128}


def get_config():
  config = megatron_8_3b.get_config()
  config.model.update(d_model=1920, d_ff=7680, num_heads=20, num_layers=54)
  config.mesh.update(tensor=2)
  return config
