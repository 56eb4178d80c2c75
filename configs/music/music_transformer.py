"""Music Transformer on piano performances: Huang et al. 2018 (arXiv:1809.04281), relative attention over 2,048 events.

Commands and data as in transformer.py; config.model.attention="music_local(block_width=512)" is the paper's local
one. Paper: 1.835 nats an event on the Piano-e-Competition's performances, and 1.840 with local attention (from
memory). Ours: not run. Hardware: one accelerator of 16 GB. Distances beyond 1,024 events share a vector, so that a
sample may be longer than a row of training.
"""

from ml_collections import ConfigDict

from attention_zoo.configs.music import transformer


def get_config():
  config = transformer.get_config()
  fields = config.model.to_dict() | dict(
    name="music_transformer", attention="music(max_distance=1024)", positions="none",
    pitch_and_time=False,  # True: relative pitch and time, for chorales in packed rows
    voices=4,  # of a chorale
    first_pitch_id=5,  # data/events.py: the token of pitch 0
    lowest_pitch=30,  # relative pitch is that of pitches from here
    highest_pitch=90,  # to here
  )  # fmt: skip
  config.model = ConfigDict(fields).lock()
  config.optimizer.d_model = config.model.d_model
  return config
