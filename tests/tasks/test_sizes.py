"""The lecture's table of sizes, counted."""

import runpy

import pytest
from absl import flags

import attention_zoo as zoo
from attention_zoo import models
from tests import config_files

CONFIGS = (
  "transformer_base", "transformer_big", "pretraining/bert_base", "pretraining/bert_large", "pretraining/xlnet_large",
  "pretraining/roberta_large", "language/gpt2", "language/gpt2_medium", "language/gpt2_large", "language/gpt2_xl",
  "language/megatron_1_2b", "language/megatron_2_5b", "language/megatron_4_2b", "language/megatron_8_3b",
)  # fmt: skip


def test_counts_are_near_what_is_printed():
  found = zoo.sizes()
  assert len(found) == 14 and all(size.counted is not None for size in found)
  for size in found:
    if size.counted:
      printed = float(size.printed.strip("~")[:-1]) * {"M": 1e6, "B": 1e9}[size.printed[-1]]
      assert size.counted == pytest.approx(printed, rel=0.07), size.name  # GPT-2's 117M are 124M


def test_known_counts():
  counted = [size.counted for size in zoo.sizes()]
  assert counted[0] == 63_045_632 and counted[2:4] == [109_482_240, 335_141_888]
  assert counted[6:10] == [124_439_808, 354_823_168, 774_030_080, 1_557_611_200]


def test_rows_are_the_configs():
  for size, name in zip(zoo.sizes(), CONFIGS, strict=True):
    config = config_files.get_config(name)
    fields = dict(config.model)
    module = models.find(fields.pop("name"))
    assert module.parameter_count(module.Config(**config_files.given(config), **fields)) == size.counted, name
    layers = fields.get("num_layers", 2 * fields.get("num_encoder_layers", 0))
    assert (layers, fields["d_model"], fields["num_heads"]) == (size.layers, size.width, size.heads), name


def test_the_command_prints_the_table_and_draws_the_figure(tmp_path, capsys):
  command = runpy.run_module("attention_zoo.sizes")
  flags.FLAGS(["sizes", f"--figure={tmp_path / 'figure.svg'}"])
  command["main"]()
  out = capsys.readouterr().out
  assert "335,141,888" in out and len(out.splitlines()) == 16
  drawn = (tmp_path / "figure.svg").read_text()
  assert drawn.startswith("<?xml") and all(f"{name}: " in drawn for name in ("BERT", "GPT", "ELMo"))


def test_a_count_is_that_of_the_shapes():
  size = zoo.sizes()[8]
  found = zoo.describe(
    size.model, length=4, d_model=size.width, d_ff=4 * size.width, num_heads=size.heads, d_k=64, d_v=64,
    **size.fields | {"num_layers": 2},
  )  # fmt: skip
  assert found.parameters == size._replace(fields=size.fields | {"num_layers": 2}).counted


def test_it_shows_itself():
  text = repr(zoo.sizes())
  assert "Megatron-LM" in text and "63,045,632" in text and len(text.splitlines()) == 15
  assert "BERT-Large" in zoo.sizes()._repr_html_()
