"""Which settings the page about a run shows."""

from attention_zoo.configs import quickstart
from attention_zoo.tasks import report


def test_fields_that_the_run_does_not_use_are_left_out():
  config = quickstart.get_config().unlock()
  config.data.dir = "left over"
  shown = dict(report.used_fields(config, bounded=False))
  for name in ("data.dir", "data.cache_dir", "model.max_length", "mesh.fsdp", "optimizer.clip_norm"):
    assert name not in shown, name
  assert shown["data.source"] == "phrasebook" and shown["model.position_mode"] == "add" and shown["task"]
  config.data.source, config.mesh.fsdp, config.model.positions, config.optimizer.clip_norm = "text", 2, "none", 1.0
  shown = dict(report.used_fields(config, bounded=True))
  assert shown["data.dir"] == "left over" and shown["mesh.fsdp"] == 2 and shown["optimizer.clip_norm"] == 1.0
  assert "model.max_length" in shown and "model.position_mode" not in shown
