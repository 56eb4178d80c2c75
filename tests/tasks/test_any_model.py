"""What a config may say beside the paper's Transformer, from training to translation."""

import json

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from attention_zoo import api, hardware
from attention_zoo.decoding.score import length_penalty
from attention_zoo.errors import UserError
from attention_zoo.tasks import translation_lines
from attention_zoo.tasks.ensemble import Ensemble
from attention_zoo.tasks.teacher_forcing import read_attention
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
  assert all(1 <= record["expert_load"] <= 4 for record in read_metrics(tmp_path) if "balance" in record)
  run = task.runner(jax.device_get(params), {}, checkpoint="latest", step=2)
  assert len(run.translate(["seven", "", "forty-nine"])) == 3
  seen = run.attention("seven")
  assert seen.encoder is None and seen.decoder.shape[:2] == seen.cross.shape[:2] == (1, 2)


def test_blocks_and_packed_rows_are_refused(number_files, tmp_path):
  config = small(number_files, "packed", decoder_attention="music_local(block_width=4)")
  with pytest.raises(UserError, match=r"decoder_attention = 'music_local\(block_width=4\)'.*batching=.bucketed"):
    Translation(config, tmp_path)


def trained(number_files, workdir, batching, **model):
  """A run of two steps, with a model in the Transformer's place."""
  config = small_config(number_files)
  config.model = ConfigDict(dict(dropout=0.1, **model)).lock()
  config.data.batching = batching
  config.optimizer.update(schedule="constant", learning_rate=1e-3)
  config.train.update(steps=2, eval_every=2, checkpoint_every=2, dev_samples=2)
  task = Translation(config, workdir)
  params = loop.train(task, config, workdir, quiet=True).params
  return task.runner(jax.device_get(params), {}, checkpoint="latest", step=2)


def test_a_model_without_attention_trains_and_translates_and_shows_none(number_files, tmp_path):
  run = trained(number_files, tmp_path, "packed", name="sutskever", d_model=16, d_hidden=16, num_layers=1)
  found = run.hypotheses(["seven", "forty-nine"], n_best=2)
  assert len(found[0]) == 2 and not run.attends
  seen = run.attention("seven", "sieben")
  assert seen.encoder is None and seen.decoder is None and seen.cross is None and seen.logprob < 0
  with pytest.raises(UserError, match="'sutskever' has no attention to its source to align by"):
    run.align(["seven"], [found[0][0]])
  line = json.loads(translation_lines.json_lines(run, [{"en": "seven"}], "en", found[:1])[0])
  assert [translation["alignment"] for translation in line["translations"]] == [None, None]
  samples = run.task.dev_samples(run.params, {}, 2)
  assert len(samples.samples) == 2 and not samples.figures
  evaluation = run.evaluate("test", beam_size=1)
  assert len(evaluation.record["hypotheses"]) == 20 and "sutskever" in run.page(evaluation)
  with run.config.unlocked():
    run.config.decode.coverage_penalty = 0.2
  with pytest.raises(UserError, match="coverage_penalty = 0.2 needs .* 'sutskever' does not say: set it to 0"):
    run.translate(["seven"])


def test_a_recurrent_model_with_attention_shows_it_and_is_told_to_cover_the_source(number_files, tmp_path):
  sizes = dict(d_model=16, d_hidden=16, d_attention=16)
  run = trained(number_files, tmp_path, "packed", name="bahdanau", d_maxout=16, **sizes)
  assert run.attends
  assert set(run.task.dev_samples(run.params, {}, 1).figures) == {"attention"}
  seen = run.attention("seven", "sieben")
  assert seen.encoder is None and seen.cross.shape == (1, 1, len(seen.target), len(seen.source))
  np.testing.assert_allclose(seen.cross.sum(-1), 1.0, rtol=1e-5)
  evaluation = run.evaluate("test", beam_size=1)
  assert "Cross-attention" in run.page(evaluation)
  # After two steps the attention is all but even. With parameters as large as these it is not.
  rng = np.random.default_rng(0)
  run.take(jax.tree.map(lambda x: rng.normal(0, 1, x.shape).astype(np.float32), run.params), {})
  (plain,) = run.hypotheses(["forty-nine"], n_best=3)
  ensemble = Ensemble([run, run])
  with run.config.unlocked(), ensemble.config.unlocked():
    run.config.decode.coverage_penalty = ensemble.config.decode.coverage_penalty = 0.5
  (covering,) = run.hypotheses(["forty-nine"], n_best=3)
  line = json.loads(translation_lines.json_lines(run, [{"en": "forty-nine"}], "en", [covering])[0])
  assert [len(found["alignment"]) for found in line["translations"]] == [len(h.ids) for h in covering]
  # The score is what the weights of teacher forcing say: equation 14 of GNMT.
  ids = covering[0].ids
  attended_S = read_attention(run.task, run.params, run.encode(["forty-nine"])[0], ids).cross[0, 0].sum(0)
  wanted = covering[0].logprob / length_penalty(len(ids), run.config.decode.alpha)
  wanted += 0.5 * np.log(np.minimum(attended_S, 1)).sum()
  np.testing.assert_allclose(covering[0].score, wanted, rtol=1e-4)
  assert covering[0].score < plain[0].score
  together = ensemble.hypotheses(["forty-nine"], n_best=3)[0]
  np.testing.assert_allclose([h.score for h in together], [h.score for h in covering], rtol=1e-4)


def test_a_run_with_experts_says_how_they_are_used(number_files, tmp_path):
  sizes = dict(d_model=16, d_hidden=16, d_attention=16, d_ff=16, num_experts=4, k=2, capacity_factor=1.0, group_rows=2)
  run = trained(number_files, tmp_path, "bucketed", name="moe_lstm", **sizes)
  records = [record for record in read_metrics(tmp_path) if "expert_load" in record]
  assert records and all(1 <= record["expert_load"] <= 2 and 0 <= record["expert_dropped"] < 1 for record in records)
  assert any(record["expert_dropped"] > 0 for record in records)  # in training; in evaluation all have room
  assert all(record["balance"] > 0 for record in records)
  (alone,), (_, together) = run.translate(["seven"]), run.translate(["forty-nine", "seven"])
  assert alone == together


def test_a_cpu_without_units_for_bfloat16_computes_in_float32(number_files, tmp_path, monkeypatch):
  """What is loaded, not what is trained; and it is the same run."""
  config = small(number_files, "packed", dtype="bfloat16", matmul_dtype="bfloat16")
  loop.train(Translation(config, tmp_path), config, tmp_path, quiet=True)
  scores = {}
  for units in (True, False):
    monkeypatch.setattr(hardware, "multiplies_bfloat16", lambda units=units: units)
    run = api.load(tmp_path)
    model = run.config.model
    assert (model.dtype, model.matmul_dtype) == (("bfloat16",) * 2 if units else ("float32",) * 2)
    scores[units] = run.score(["seven"], ["sieben"])[0].logprob
  assert scores[True] != scores[False] and abs(scores[True] / scores[False] - 1) < 0.02


def test_a_coverage_penalty_that_the_model_cannot_have_is_told_before_training(number_files, tmp_path):
  config = small(number_files, "packed")
  config.decode.coverage_penalty = 0.2
  with pytest.raises(UserError, match="coverage_penalty = 0.2 needs .* 'transformer' does not say: set it to 0"):
    loop.train(Translation(config, tmp_path), config, tmp_path, quiet=True)
  assert not (tmp_path / "tokenizer.model").exists()
