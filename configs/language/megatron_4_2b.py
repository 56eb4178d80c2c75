"""Megatron-LM (Shoeybi et al. 2019), 4.2 billion parameters: 64 layers, width 2,304, 24 heads; over 4 devices.

Commands, data and settings as in megatron_8_3b.py. Paper: no perplexity of this size. Ours: not run.
Hardware: 256 V100 for 10 days.
"""

from attention_zoo.configs.language import megatron_8_3b

PAPER = {"gpus": 256}


def get_config():
  config = megatron_8_3b.get_config()
  config.model.update(d_model=2304, d_ff=9216, num_heads=24, num_layers=64)
  config.mesh.update(tensor=4)
  return config
