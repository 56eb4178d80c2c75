"""Megatron-LM (Shoeybi et al. 2019), 8.3 billion parameters: 72 layers, width 3,072, 32 heads, each product over 8
devices.

  python -m attention_zoo.train   --config=configs/language/megatron_8_3b.py --config.data.dir=DIR --workdir=WORKDIR
  python -m attention_zoo.compile --config=configs/language/megatron_8_3b.py --topology=v5p:4x4x4

DIR as in gpt2.py; 174 GB of text there. Paper: 10.81 perplexity per word on WikiText-103. Ours: not run. Hardware: 512
V100 for 9 days. Settings from the paper (from memory): 300,000 steps of 512 rows of 1,024 tokens, Adam to 1.5e-4 in
3,000 steps and down a cosine to 1e-5, weight decay 0.01, the vocabulary filled up to 51,200 pieces.
Deviations: a BPE of SentencePiece in the place of GPT-2's over bytes; those of the model's file.
The smaller ones are megatron_1_2b.py, megatron_2_5b.py and megatron_4_2b.py, of the paper's other settings.
"""

from attention_zoo.configs.language import gpt2


def get_config():
  config = gpt2.get_config()
  config.model.update(
    d_model=3072, d_ff=12_288, num_heads=32, d_k=96, d_v=96, num_layers=72, remat=True, scan_layers=True
  )
  config.data.update(vocab_size=51_200)
  config.optimizer.update(
    name="adamw(b1=0.9, b2=0.999, eps=1e-8, weight_decay=0.01)",
    schedule="cosine(decay_steps=297_000, end_factor=0.0667)", learning_rate=1.5e-4, warmup_steps=3000,
  )  # fmt: skip
  config.train.update(steps=300_000)
  config.mesh.update(rules="tensor_parallel", tensor=8)
  return config
