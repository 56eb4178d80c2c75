"""Music Transformer on chorales: the whole model against loops, packed pieces, eight devices, what a config may not
say. That it decodes as it reads is in tests/conformance/."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_zoo.models.music import music_transformer
from tests.models.translation.placed import assert_one_device_equals_eight
from tests.ops.against import assert_close

SMALL = music_transformer.small()


def batch_of(tokens_BT, first=None):
  """A batch whose rows hold one piece, or two, the first of `first` tokens."""
  at_T = np.arange(tokens_BT.shape[1])
  second_T = at_T >= (first or len(at_T))
  rows = lambda x_T: jnp.asarray(np.broadcast_to(x_T, tokens_BT.shape), jnp.int32)
  positions = rows(at_T - second_T * (first or 0))
  return {"inputs": jnp.asarray(tokens_BT, jnp.int32), "segments": rows(1 + second_T), "positions": positions}


@pytest.fixture(scope="module")
def made():
  """(parameters that are random in every leaf, tokens [8, 9], logits of a batch)."""
  tokens_BT = np.random.default_rng(0).integers(0, SMALL.vocab_size, (8, 9))
  model = music_transformer.Model(SMALL)
  shapes = jax.eval_shape(model.init, jax.random.key(0), batch_of(tokens_BT))["params"]
  chance = np.random.default_rng(1)
  draw = lambda path, leaf: jnp.asarray(chance.normal(path[-1].key == "scale", 0.4, leaf.shape), jnp.float32)
  params = jax.tree_util.tree_map_with_path(draw, shapes)
  return params, tokens_BT, jax.jit(lambda params, batch: model.apply({"params": params}, batch))


def norm(x, p):
  x = x - x.mean(-1, keepdims=True)
  return x / np.sqrt(x.var(-1, keepdims=True) + SMALL.norm_epsilon) * p["scale"] + p["bias"]


def attention(x_TD, tokens_T, p):
  """One layer's, one row; the notes of each voice in turn after the begin, `voices` a time."""
  c = SMALL
  q, k, v = (np.einsum("td,dnk->tnk", x_TD, p[name]["kernel_DN" + "KKH"[i]]) for i, name in enumerate(
    ("query", "key", "value")
  ))  # fmt: skip
  tables = [p[f"{name}_RNK"] for name in ("table", "pitch_table", "time_table")]
  pitch = [token - c.first_pitch_id for token in tokens_T]
  pitch = [x if c.lowest_pitch <= x <= c.highest_pitch else None for x in pitch]
  time = [-(-t // c.voices) for t in range(len(tokens_T))]
  out = np.zeros((len(x_TD), c.num_heads, c.d_v))
  for t, n in np.ndindex(*out.shape[:2]):
    logits = np.zeros(t + 1)
    for s in range(t + 1):
      key = k[s, n] + tables[0][max(len(tables[0]) - 1 - (t - s), 0), n]
      key = key + tables[2][max(len(tables[2]) - 1 - (time[t] - time[s]), 0), n]
      if pitch[t] is not None and pitch[s] is not None:
        key = key + tables[1][pitch[s] - pitch[t] + len(tables[1]) // 2, n]
      logits[s] = q[t, n] @ key / np.sqrt(c.d_k)
    weights = np.exp(logits - logits.max())
    out[t, n] = weights @ v[: t + 1, n] / weights.sum()
  return np.einsum("tnh,nhd->td", out, p["output"]["kernel_NHD"])


def test_the_whole_model_is_the_papers(made):
  params, tokens_BT, logits = made
  p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
  for row, tokens_T in enumerate(tokens_BT[:3]):
    table = p["embedding"]["table_VD"]
    x_TD = table[tokens_T] * SMALL.d_model**0.5
    for i in range(SMALL.num_layers):
      layer = p["decoder"][f"layer_{i}"]
      x_TD = x_TD + attention(norm(x_TD, layer["self_attention_norm"]), tokens_T, layer["self_attention"])
      wi, wo = layer["feed_forward"]["wi"], layer["feed_forward"]["wo"]
      h_TF = np.maximum(norm(x_TD, layer["feed_forward_norm"]) @ wi["kernel_DF"] + wi["bias_F"], 0)
      x_TD = x_TD + h_TF @ wo["kernel_FD"] + wo["bias_D"]
    wanted = norm(x_TD, p["decoder"]["norm"]) @ table.T
    assert_close(logits(params, batch_of(tokens_BT))[row], wanted, 2e-5)


def test_pieces_that_share_a_row_each_begin_their_own_time(made):
  params, tokens_BT, logits = made
  packed_BTV = logits(params, batch_of(tokens_BT, first=5))
  assert_close(packed_BTV[:, 5:], logits(params, batch_of(tokens_BT[:, 5:])), 2e-5)


@pytest.mark.parametrize("rules", ["data_parallel", "fsdp"])
def test_one_device_equals_eight(made, rules):
  params, tokens_BT, _ = made
  assert_one_device_equals_eight(music_transformer, SMALL, params, batch_of(tokens_BT), rules)


def test_what_a_config_may_not_say():
  with pytest.raises(ValueError, match="must be music"):
    dataclasses.replace(SMALL, attention="rotary")
  with pytest.raises(ValueError, match="must be music"):
    dataclasses.replace(SMALL, attention="music")
  with pytest.raises(ValueError, match="lowest_pitch = 7 is above"):
    dataclasses.replace(SMALL, lowest_pitch=7)
  assert not dataclasses.replace(SMALL, attention="music(max_distance=9)").bounded
