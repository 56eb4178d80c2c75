"""A decoder-only Transformer with absolute positions on piano performances: Huang et al. 2018 (arXiv:1809.04281).

  python -m attention_zoo.train    --config=configs/music/transformer.py --config.data.dir=DIR --workdir=WORKDIR
  python -m attention_zoo.evaluate --workdir=WORKDIR --split=test
  python -m attention_zoo.sample   --workdir=WORKDIR --prime=motif.mid --seconds=30 --output=out.mid

DIR holds the folders train, validation and test of MIDI files, at any depth: MAESTRO sorted by its split, or one's
own. config.data.source="midi(split='hash')" with config.data.dev_split=dev splits a single folder by the hash of each
file's path; midi(piece=...) keeps several performances of a piece together.

The paper's data is the Piano-e-Competition's, not public any more. Paper: its Transformer without relative positions,
8 layers with attention in blocks, has 1.861 nats an event (from memory). Ours: not run. Hardware: one accelerator of
16 GB. Here 6 layers see all of their 2,048 events. How it was optimised is not copied from the paper: here it is Adam
along Vaswani et al.'s schedule, rows of 2,048 events, four a batch. It is also the base of the other configs of music.
"""

from attention_zoo.configs.language import lm1b_base


def get_config():
  config = lm1b_base.get_config()
  config.task = "music"
  config.model.update(d_model=512, d_ff=2048, num_layers=6, dropout=0.1, max_length=2048)
  with config.unlocked():
    del config.data.normalization, config.data.split_digits
    config.data.transpose = 3  # semitones up or down; 0: none
    config.data.stretch = 0.05  # times 0.95 to 1.05; 0.0: none
  config.data.update(
    source="midi", dev_split="validation", vocab_size=312, tokenizer="piano", batching="windows", batch_tokens=4 * 2048,
    row_length=2048, row_multiple=1,
  )  # fmt: skip
  config.optimizer.update(
    name="adam(b1=0.9, b2=0.98, eps=1e-9)", learning_rate=1.0, warmup_steps=4000, clip_norm=1.0
  )
  config.train.update(steps=300_000, eval_every=5000, checkpoint_every=2500, best_metric="loss")
  config.decode.update(max_tokens=2048, batch_tokens=16_384)
  return config
