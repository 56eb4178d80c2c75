"""What a config may say beside the paper's Transformer, from training to translation."""

import jax
import numpy as np
import pytest

from attention_zoo.errors import UserError
from attention_zoo.tasks.translation import Translation
from attention_zoo.training import loop
from attention_zoo.training.metrics import read_metrics
from tests.small_run import small_config


def small(number_files, batching, **model):
  config = small_config(number_files)
  config.model.update(**model)
  config.data.batching = batching
  config.train.update(steps=2, eval_every=2, checkpoint_every=2)
  return config


def test_local_attention_and_experts_train_and_translate(number_files, tmp_path):
  config = small(
    number_files, "bucketed", encoder_attention="local(block_width=4)", decoder_attention="shaw(max_distance=4)",
    positions="none", feed_forward="mixture_of_experts(num_experts=4)",
  )  # fmt: skip
  task = Translation(config, tmp_path)
  params = loop.train(task, config, tmp_path, quiet=True).params
  balance = [record["balance"] for record in read_metrics(tmp_path) if "balance" in record]
  assert balance and np.isfinite(balance).all()
  run = task.runner(jax.device_get(params), {}, checkpoint="latest", step=2)
  assert len(run.translate(["seven", "", "forty-nine"])) == 3
  seen = run.attention("seven")
  assert seen.encoder is None and seen.decoder.shape[:2] == seen.cross.shape[:2] == (1, 2)


def test_blocks_and_packed_rows_are_refused(number_files, tmp_path):
  config = small(number_files, "packed", decoder_attention="music_local(block_width=4)")
  with pytest.raises(UserError, match=r"decoder_attention = 'music_local\(block_width=4\)'.*batching=.bucketed"):
    Translation(config, tmp_path)
