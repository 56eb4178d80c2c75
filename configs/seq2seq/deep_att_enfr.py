"""Deep-Att, WMT14 English-French (Zhou et al. 2016): 37.7 BLEU of one model in the paper, 39.2 with unknown words
replaced (PosUnk), 40.4 of several together.

  python -m attention_zoo.train    --config=configs/seq2seq/deep_att_enfr.py --workdir=DIR
  python -m attention_zoo.evaluate --workdir=DIR --split=test

Hardware: several GPUs in the paper. Ours: not run.
The paper took words; here word pieces (30,000 for both), which leave hardly a word unknown. Optimizer, batch and number
of steps are ours.
What is said of the paper is from memory.
"""

from ml_collections import ConfigDict

from attention_zoo.configs import transformer_base_enfr


def get_config():
  config = transformer_base_enfr.get_config()
  # Another model has other fields, so that the group is replaced as a whole.
  config.model = ConfigDict(
    dict(
      name="deep_att",
      d_model=256,
      d_hidden=512,
      d_attention=512,
      num_encoder_layers=9,
      num_decoder_layers=7,
      dropout=0.1,
      init_scale=0.07,
      dtype="float32",
      matmul_dtype="bfloat16",
    )
  ).lock()
  # Bucketed: a recurrence takes as many steps as a row is long.
  config.data.update(vocab_size=30000, batching="bucketed", batch_tokens=16384)
  config.optimizer.update(
    name="adam", schedule="stepwise(begin=300_000, decay_steps=50_000)", learning_rate=5e-4, warmup_steps=0,
    clip_norm=1.0,
  )  # fmt: skip
  config.train.update(steps=500_000, label_smoothing=0.0)
  config.decode.update(beam_size=3, alpha=0.0)
  return config
