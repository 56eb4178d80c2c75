"""LSTMs with mixtures of 2,048 experts, WMT14 English-German (Shazeer et al. 2017): 26.03 BLEU in the paper.

  python -m attention_zoo.train    --config=configs/seq2seq/moe_lstm_ende.py --workdir=DIR
  python -m attention_zoo.evaluate --workdir=DIR --split=test

Hardware: 64 K40 GPUs for a day in the paper. Ours: not run.
8.6 of its 8.7 billion parameters are the experts': config.mesh.rules="tensor_parallel" or "fsdp+tensor_parallel" splits
them over devices. Batch, rates and number of steps are ours.
What is said of the paper is from memory.
"""

from ml_collections import ConfigDict

from attention_zoo.configs import transformer_base


def get_config():
  config = transformer_base.get_config()
  # Another model has other fields, so that the group is replaced as a whole.
  config.model = ConfigDict(
    dict(
      name="moe_lstm",
      d_model=512,
      d_hidden=2048,
      d_attention=512,
      d_ff=2048,
      num_encoder_layers=3,
      num_decoder_layers=2,
      num_experts=2048,
      k=4,
      capacity_factor=2.0,
      group_rows=64,
      balance=0.01,
      dropout=0.4,
      init_scale=0.04,
      dtype="float32",
      matmul_dtype="bfloat16",
    )
  ).lock()
  # Bucketed: a recurrence takes as many steps as a row is long.
  config.data.update(vocab_size=32000, batching="bucketed", batch_tokens=49152)
  config.optimizer.update(
    name="adam", schedule="inverse_sqrt", learning_rate=1.0, warmup_steps=2000, clip_norm=5.0, d_model=512
  )
  config.train.update(steps=50_000, label_smoothing=0.0)
  config.decode.update(beam_size=8, alpha=0.2, coverage_penalty=0.2)
  return config
