"""BERT-large (Devlin et al. 2018): 24 layers, width 1,024, 16 heads, 335,141,888 parameters.

Commands and data as in bert_base.py. Paper: GLUE 82.1 on average (from memory). Ours: not run. Hardware: 64 chips of
TPU for four days, says the paper.
"""

from attention_zoo.configs.pretraining import bert_base

PAPER = {"glue": 82.1}


def get_config():
  config = bert_base.get_config()
  config.model.update(d_model=1024, d_ff=4096, num_heads=16, num_layers=24)
  config.optimizer.update(d_model=1024)
  return config
