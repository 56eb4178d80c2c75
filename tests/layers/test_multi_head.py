"""Multi-head attention is separate heads, added; its cached form is the same; its weights made its output."""

import jax
import jax.numpy as jnp
import numpy as np

from attention_zoo.layers.attention import MultiHeadAttention
from attention_zoo.ops import masks
from attention_zoo.ops.variant import Parameter, Variant

B, T, S, D, N, K, H = 2, 4, 5, 6, 3, 2, 7


def setup():
  rng = np.random.default_rng(0)
  draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
  params = {
    "query": {"kernel_DNK": draw(D, N, K)},
    "key": {"kernel_DNK": draw(D, N, K)},
    "value": {"kernel_DNH": draw(D, N, H)},
    "output": {"kernel_NHD": draw(N, H, D)},
  }
  mask = jnp.asarray(rng.random((B, 1, T, S)) < 0.6).at[0, 0, 1].set(False)  # one query sees nothing
  return params, draw(B, T, D), draw(B, S, D), mask


def close(actual, wanted):
  np.testing.assert_allclose(np.asarray(actual), np.asarray(wanted), rtol=1e-5, atol=1e-5)


def test_heads_are_separate_and_added():
  """Concat(head_1 .. head_h) W^O = sum_i head_i W_i^O: N modules of one head each, with their slices of the kernels."""
  params, x, memory, mask = setup()
  together = MultiHeadAttention(N, K, H, D).apply({"params": params}, x, memory, mask=mask)
  total = 0
  for n in range(N):
    one = jax.tree.map(lambda kernel: kernel[:, n : n + 1], params)
    one["output"] = jax.tree.map(lambda kernel: kernel[n : n + 1], params["output"])
    total += MultiHeadAttention(1, K, H, D).apply({"params": one}, x, memory, mask=mask)
  close(together, total)
  assert together.shape == (B, T, D) and not np.asarray(together)[0, 1].any()


def test_weights_made_the_output():
  params, x, memory, mask = setup()
  plain = MultiHeadAttention(N, K, H, D).apply({"params": params}, x, memory, mask=mask)
  out, state = MultiHeadAttention(N, K, H, D).apply(
    {"params": params}, x, memory, mask=mask, mutable=["intermediates"]
  )
  (weights_BNTS,) = state["intermediates"]["weights"]
  close(out, plain)
  close(weights_BNTS.sum(-1), np.broadcast_to(mask.any(-1), (B, N, T)))
  assert ((np.asarray(weights_BNTS) > 0) == np.asarray(mask)).all()
  value, output = params["value"]["kernel_DNH"], params["output"]["kernel_NHD"]
  close(out, np.einsum("bnts,bsd,dnh,nhe->bte", weights_BNTS, memory, value, output))


def test_the_cached_form_is_the_same():
  params, x, memory, _ = setup()
  module = MultiHeadAttention(N, K, H, D)
  valid_BS = jnp.arange(S)[None] < jnp.array([[S], [2]])
  k_BNSK, v_BNSH = module.apply({"params": params}, memory, method="keys_values")
  assert k_BNSK.shape == (B, N, S, K) and v_BNSH.shape == (B, N, S, H)
  for mask in (None, masks.padding(valid_BS)):
    cached = module.apply({"params": params}, x, k_BNSK, v_BNSH, mask, method="attend")
    close(cached, module.apply({"params": params}, x, memory, mask=mask))


def test_dropout_falls_on_the_weights():
  params, x, memory, mask = setup()
  module = MultiHeadAttention(N, K, H, D)
  out = module.apply({"params": params}, x, memory, mask=mask, dropout=lambda weights: weights * 3)
  close(out, 3 * module.apply({"params": params}, x, memory, mask=mask))


def test_any_attention_function_fits():
  params, x, memory, _ = setup()

  def average(p, q_BTNK, k_BSNK, v_BSNH, *, mask, segments_BT, dropout):
    return p["by"] * jnp.broadcast_to(v_BSNH.mean(1, keepdims=True), (*q_BTNK.shape[:3], v_BSNH.shape[3]))

  attention = Variant(average, parameters={"by": Parameter((), 0)})
  module = MultiHeadAttention(N, K, H, D, attention=attention)
  out = module.apply({"params": params | {"by": jnp.float32(1)}}, x, memory)
  one = np.einsum("bd,dnh,nhe->be", np.mean(memory, 1), params["value"]["kernel_DNH"], params["output"]["kernel_NHD"])
  close(out, np.broadcast_to(one[:, None], out.shape))


def test_parameters_are_float32_without_biases_and_activations_keep_their_type():
  params, x, memory, _ = setup()
  module = MultiHeadAttention(N, K, H, D)
  x, memory = x.astype(jnp.bfloat16), memory.astype(jnp.bfloat16)
  shapes = jax.eval_shape(module.init, jax.random.key(0), x, memory)["params"]
  assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), shapes) == jax.tree.map(
    lambda leaf: (leaf.shape, leaf.dtype), params
  )
  assert module.apply({"params": params}, x, memory).dtype == jnp.bfloat16
