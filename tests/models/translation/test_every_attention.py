"""Each attention that a config can name, inside the Transformer: counted, decoded, packed or not,
and refused by name."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_zoo.models.translation import transformer
from tests import attentions
from tests.models.translation import transformer_cases as cases

BASE = dataclasses.replace(cases.POST, num_decoder_layers=1, max_length=16, d_v=6)
OTHERS = {
  # With room for all, so that nobody's expert hangs on who else is in the row.
  "experts": dict(feed_forward="mixture_of_experts(num_experts=3, k=2, capacity_factor=1.5)"),
  "no residual, timing signals": dict(residual="none", position_mode="add_every_layer", num_decoder_layers=2),
  "concatenated": dict(position_mode="concatenate"),
  "scalar": dict(positions="scalar"),
}
VARIANTS = {
  name: dict(encoder_attention=text, decoder_attention=text, positions="none")
  for name, text in attentions.TEXTS.items()
}


@pytest.fixture(scope="module", params=VARIANTS | OTHERS)
def case(request):
  return cases.Case(dataclasses.replace(BASE, **(VARIANTS | OTHERS)[request.param]))


@pytest.fixture(scope="module")
def forward(case):
  return jax.jit(lambda params, batch: case.apply(params, batch))


def test_parameters_are_counted(case):
  assert sum(leaf.size for leaf in jax.tree.leaves(case.params)) == transformer.parameter_count(case.config)


def test_cached_decoding_equals_teacher_forcing(case, forward):
  """Two sentences, three beams that die and multiply: a prompt, steps, and a block of which one token is kept."""
  B, J, T = 2, 3, 7
  rng = np.random.default_rng(2)
  batch = cases.alone((3, 4))
  decoding = transformer.decoding(case.config, case.params, batch, num_beams=J)
  cache, step = decoding.grow(decoding.cache, T), jax.jit(decoding.step)
  inputs_BJT = np.full((B, J, T), cases.BOS, np.int32)
  outs_BJTV = np.zeros((B, J, T, 11), np.float32)
  for t, length in ((0, 3), (3, 1), (4, 3), (5, 1), (6, 1)):
    new = slice(t, t + length)
    inputs_BJT[:, :, max(t, 1) : t + length] = rng.integers(2, 11, (B, J, length - (t == 0)))
    outs_BJTV[:, :, new], cache = step(inputs_BJT[:, :, new], jnp.int32(t), cache)
    parents_BJ = rng.integers(0, J, (B, J))
    cache = decoding.reorder(cache, parents_BJ)
    inputs_BJT, outs_BJTV = (x[np.arange(B)[:, None], parents_BJ] for x in (inputs_BJT, outs_BJTV))
  forced = {key: jnp.repeat(batch[key], J, axis=0) for key in cases.KEYS}
  forced["inputs"] = jnp.asarray(inputs_BJT.reshape(-1, T))
  forced["target_segments"] = jnp.ones((B * J, T), jnp.int32)
  forced["target_positions"] = jnp.broadcast_to(jnp.arange(T), (B * J, T))
  wanted = np.asarray(forward(case.params, forced)).reshape(B, J, T, -1)
  cases.assert_close(outs_BJTV, wanted, 1e-5)


def test_packing_changes_nothing_where_it_is_allowed(case, forward):
  """And what does not pack would change."""
  alone = np.asarray(forward(case.params, cases.alone(garbage=1)))
  packed = np.asarray(forward(case.params, cases.packed(garbage=2)))
  gap = 0
  for i, length in enumerate(cases.TARGET_LENGTHS):
    start = cases.TARGET_LENGTHS[i - 1] if i % 2 else 0
    gap = max(gap, np.abs(packed[i // 2, start : start + length] - alone[i, :length]).max())
  assert gap < 1e-5 if case.config.packs else gap > 1e-3


def test_the_future_and_the_padding_are_not_seen(case, forward):
  batch = cases.alone()
  other = batch | {"inputs": batch["inputs"].at[:, 3:].set(5)}
  first, second = (np.asarray(forward(case.params, b)) for b in (batch, other))
  np.testing.assert_array_equal(first[:, :3], second[:, :3])
  assert (first[0, 3:] != second[0, 3:]).any()
  noisy = np.asarray(forward(case.params, cases.alone(garbage=7)))
  for i, length in enumerate(cases.TARGET_LENGTHS):
    np.testing.assert_array_equal(noisy[i, :length], first[i, :length])


@pytest.mark.parametrize(
  ("field", "text", "message"),
  [
    ("decoder_attention", "shwa", r"no attention 'shwa' \(did you mean 'shaw'\?\); there are additive, alibi"),
    ("encoder_attention", "shaw(width=3)", "shaw has no option 'width'; it has max_distance, values, shared"),
    ("encoder_attention", "shaw(3)", 'is not of the form "name" or "name.option=value'),
    ("encoder_attention", "__import__('os').system('true')", "is not of the form"),
    ("encoder_attention", "local", "local needs the option block_width"),
    ("decoder_attention", "time_restricted(left=2, right=1)", "sees the future"),
    ("decoder_attention", "t5(num_buckets=1)", "num_buckets is 1"),
    ("feed_forward", "mixture", "'mixture' is not one of dense, mixture_of_experts"),
    ("feed_forward", "mixture_of_experts(experts=4)", "experts"),
  ],
)
def test_what_cannot_be_is_named(field, text, message):
  with pytest.raises(ValueError, match=rf"model\.{field}: .*{message}"):
    dataclasses.replace(BASE, **{field: text})
