"""The tiles of relative attention: what the kernels for TPUs and for GPUs share, and the derivative that joins them.

  logits_ts = q_t . k_s + position_t . table[r] + bias[r],  r the row of the distance between t and s
  out_t = sum_s softmax_s(logits_ts) (v_s + value_table[r])

No array [T, S] exists in memory. A tile of W queries by W keys reaches 2 W - 1 distances, so that two neighbouring
blocks of W rows of a table are all it needs: the queries are multiplied with both and the product, [W, 2 W], is skewed
in the tile (Huang et al. 2018, section 3.4.1, there for the whole [L, L]). The softmax goes over the keys block
by block and keeps its maximum and its sum, and the backward pass computes each tile anew from the logarithm of that sum
(Dao et al. 2022, 2023). Three kernels take the gradients: of queries (a program owns queries), of keys and values (it
owns keys), of tables and biases (it owns a diagonal of tiles, which all reach the same distances, and the rows that two
neighbouring diagonals share are added up outside). Every sum is taken by one program in a fixed order.

All lengths here are multiples of the width W. Tables are of the distances s - t from -(T - 1) on, T as padded, in
blocks of W rows. The letters at the end of a name say which block of the array a program gets, and which device.

Letters beside the house's: U two blocks side by side, the distances that a tile reaches.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

HIDDEN = -1e30  # the logit of a key that is not seen; finite, so that nothing is ever infinity minus infinity
LOWEST = HIDDEN / 2  # where the maximum of a row starts: exp(HIDDEN - LOWEST) is exactly 0
TABLES = ("table_NRK", "value_table_NRH", "bias_N1R")


class Tiles(NamedTuple):
  """T, S: lengths before they were padded. width: W. causal: t sees s <= t + S - T. gpu: Triton's kernels.
  interpret: on anything."""

  T: int
  S: int
  width: int
  causal: bool
  gpu: bool
  interpret: bool

  @property
  def rows(self):
    return -(-self.T // self.width)

  @property
  def columns(self):
    return -(-self.S // self.width)

  @property
  def ahead(self):
    """Tile (i, j) has a pair that may attend if j - i <= ahead."""
    return (self.width - 1 + self.S - self.T) // self.width if self.causal else self.columns

  @property
  def diagonals(self):
    """How many diagonals have a tile that is not hidden; tile (i, j) is on the diagonal j - i + rows - 1."""
    return self.rows + min(self.columns - 1, self.ahead)

  @property
  def distances(self):
    """Rows of a padded table."""
    return (self.diagonals + 1) * self.width


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def attend(tiles, arrays, segments):
  """out_BNTH. arrays: {name: array} of q_BNTK (scaled), k_BNSK, v_BNSH and, where there are any, position_BNTK (without
  it the queries are multiplied with the table), table_NRK, value_table_NRH, bias_N1R (float32), all tables of 1 or of N
  heads. segments: {} or query_segments_B1T and key_segments_B1S, int32, 0 where padded.

  Cost: time O(T S N (K + H)), memory O((T + S) N (K + H)), forward and backward.
  """
  return _kernels(tiles).forward(tiles, arrays | segments)[0]


def _attend_forward(tiles, arrays, segments):
  out_BNTH, lse_BN1T = _kernels(tiles).forward(tiles, arrays | segments)
  return out_BNTH, (arrays, segments, out_BNTH, lse_BN1T)


def _attend_backward(tiles, saved, gradient_BNTH):
  arrays, segments, out_BNTH, lse_BN1T = saved
  delta_BNT = jnp.sum(gradient_BNTH.astype(jnp.float32) * out_BNTH.astype(jnp.float32), -1)
  inputs = arrays | segments
  inputs |= {"gradient_BNTH": gradient_BNTH, "lse_BN1T": lse_BN1T, "delta_BN1T": delta_BNT[:, :, None]}
  gradients = _kernels(tiles).backward(tiles, inputs)
  gradients |= {name: _joined(gradients[name], (name, x)) for name, x in arrays.items() if name in TABLES}
  return gradients, None


attend.defvjp(_attend_forward, _attend_backward)


def _kernels(tiles):
  if tiles.gpu:
    from attention_zoo.ops.kernels import relative_gpu as kernels
  else:
    from attention_zoo.ops.kernels import relative_tpu as kernels
  return kernels


def _joined(found, table):
  """A table's gradient from those of all diagonals, 2 W rows each; the rows of neighbours overlap by W."""
  name, x = table
  first, second = jnp.split(found, 2, 3 if name.endswith("R") else 2)
  rest = ((0, 0),) * 2
  whole = jnp.pad(first, ((0, 0), (0, 1), *rest)) + jnp.pad(second, ((0, 0), (1, 0), *rest))
  return whole.reshape(x.shape).astype(x.dtype)


# What the kernels share. `at` brings the blocks of a tile by the names of the arrays: `at(name)`, `at.pair(name)` two
# neighbouring blocks of a table, `at.column(name)` one number for each query, [W, 1]. It skews and unskews.


def product(x, y, axes):
  """x . y over the axes given, sums in float32."""
  return jax.lax.dot_general(x, y, (axes, ((), ())), preferred_element_type=jnp.float32)


def by_rows(x, y):
  """x y^T."""
  return product(x, y, ((1,), (1,)))


def times(weights, x):
  return product(weights.astype(x.dtype), x, ((1,), (0,)))


def position(names):
  """The name of what is multiplied with the table."""
  return "position_BNTK" if "position_BNTK" in names else "q_BNTK"


def logits(tiles, at, i, j):
  """Logits of tile (i, j), HIDDEN where the key is not seen."""
  W = tiles.width
  logits_WW = by_rows(at("q_BNTK"), at("k_BNSK"))
  relative_WU = None
  if "table_NRK" in at:
    relative_WU = by_rows(at(position(at)), at.pair("table_NRK"))
  if "bias_N1R" in at:
    bias_WU = jnp.broadcast_to(at.pair("bias_N1R"), (W, 2 * W))
    relative_WU = bias_WU if relative_WU is None else relative_WU + bias_WU
  if relative_WU is not None:
    logits_WW += at.skew(relative_WU)
  t_WW = i * W + jax.lax.broadcasted_iota(jnp.int32, (W, W), 0)
  s_WW = j * W + jax.lax.broadcasted_iota(jnp.int32, (W, W), 1)
  visible = []
  if tiles.causal:
    visible.append(s_WW - t_WW <= tiles.S - tiles.T)
  if "query_segments_B1T" in at:
    query_W1, key_1W = at.column("query_segments_B1T"), at("key_segments_B1S")
    visible.append((query_W1 == key_1W) & (query_W1 > 0))
  elif tiles.S % W:
    visible.append(s_WW < tiles.S)
  return jnp.where(functools.reduce(jnp.logical_and, visible), logits_WW, HIDDEN) if visible else logits_WW


def weights(tiles, at, i, j):
  """(weights of tile (i, j), gradient of its logits), both computed anew."""
  weights_WW = jnp.exp(logits(tiles, at, i, j) - at.column("lse_BN1T"))
  gradient_WW = by_rows(at("gradient_BNTH"), at("v_BNSH"))
  if "value_table_NRH" in at:
    gradient_WW += at.skew(by_rows(at("gradient_BNTH"), at.pair("value_table_NRH")))
  return weights_WW, weights_WW * (gradient_WW - at.column("delta_BN1T"))
