"""The quickstart shrunk to seconds, for tests that need a trained run."""

from attention_zoo.configs import quickstart

SMALL = {
  "model": dict(d_model=32, d_ff=64, num_heads=2, d_k=16, d_v=16, num_encoder_layers=1, num_decoder_layers=1),
  "data": dict(source="text", vocab_size=200, batch_tokens=1024, row_length=32, max_length=32),
  "optimizer": dict(learning_rate=2.0, schedule="inverse_sqrt", warmup_steps=30),
  "train": dict(steps=40, eval_every=20, checkpoint_every=10, keep=3, log_every=10, dev_samples=0),
  "decode": dict(beam_size=3, extra_length=12, batch_tokens=256),
}


def small_config(number_files):
  """The quickstart, shrunk to seconds, on `number_files`."""
  config = quickstart.get_config()
  for group, fields in SMALL.items():
    config[group].update(fields)
  config.data.update(dir=str(number_files), train_split="train", dev_split="dev", test_split="test")
  return config
