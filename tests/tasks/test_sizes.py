"""The lecture's table of sizes, counted."""

import pytest

import attention_zoo as zoo


def test_counts_are_near_what_is_printed():
  found = zoo.sizes()
  assert len(found) == 14 and sum(size.counted is not None for size in found) == 10
  for size in found:
    if size.counted:
      printed = float(size.printed[:-1]) * {"M": 1e6, "B": 1e9}[size.printed[-1]]
      assert size.counted == pytest.approx(printed, rel=0.07), size.name  # GPT-2's 117M are 124M


def test_known_counts():
  counted = [size.counted for size in zoo.sizes()]
  assert counted[0] == 63_045_632 and counted[6] == 124_439_808


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
