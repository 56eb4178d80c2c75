"""Megatron-LM (Shoeybi et al. 2019), 1.2 billion parameters: 40 layers, width 1,536, 16 heads; over one device.

Commands, data and settings as in megatron_8_3b.py. Paper: no perplexity of this size. Ours: not run.
Hardware: 64 V100.
"""

from attention_zoo.configs.language import megatron_8_3b

PAPER = {"gpus": 64}


def get_config():
  config = megatron_8_3b.get_config()
  config.model.update(d_model=1536, d_ff=6144, num_heads=16, num_layers=40)
  config.mesh.update(rules="data_parallel", tensor=1)
  return config
