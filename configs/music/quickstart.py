"""A small Music Transformer on the Bach chorales that music21 brings, on two CPU cores: no files, no network.

  python -m attention_zoo.train  --config=configs/music/quickstart.py --workdir=DIR
  python -m attention_zoo.sample --workdir=DIR --seconds=20 --output=out.mid
  python -m attention_zoo.sample --workdir=DIR --prime=motif.mid --seconds=20 --output=out.mid

Ours: not run on today's splits (before, when some chorales stood in two of them: 0.654 nats an event on dev and 0.642
on test after 600 steps, 6 minutes on two cores of an AMD EPYC beside other work). It needs
pip install 'attention_zoo[music]'. The same data with absolute positions: quickstart_transformer.py; with an LSTM:
quickstart_lstm.py. `python -m attention_zoo.compare` puts the three on one page.
"""

from attention_zoo.configs.music import chorales_relative_pitch_time


def get_config():
  config = chorales_relative_pitch_time.get_config()
  config.model.update(
    d_model=96, d_ff=384, num_heads=4, d_k=24, d_v=24, num_layers=3, dropout=0.1, dtype="float32",
    matmul_dtype="float32", attention="music(max_distance=128)",
  )  # fmt: skip
  config.data.update(source="bach", dev_split="dev", transpose=3, batch_tokens=8 * 256, row_length=256)
  config.optimizer.update(
    name="adam(b1=0.9, b2=0.98, eps=1e-9)", schedule="cosine(decay_steps=600, end_factor=0.1)", learning_rate=3e-3,
    warmup_steps=100,
  )  # fmt: skip
  config.train.update(steps=600, eval_every=200, checkpoint_every=100, log_every=50)
  config.decode.update(max_tokens=512)
  return config
