"""The tiles of relative attention: four Pallas kernels (Mosaic, for TPUs) and the derivative that joins them.

  logits_ts = q_t . k_s + position_t . table[r] + bias[r],  r the row of the distance between t and s
  out_t = sum_s softmax_s(logits_ts) (v_s + value_table[r])

No array [T, S] exists in memory. A tile of W queries by W keys reaches 2 W - 1 distances, so that two neighbouring
blocks of W rows of a table are all it needs: the queries are multiplied with both and the product, [W, 2 W], is skewed
in the tile (`skew`; Huang et al. 2018, section 3.4.1, there for the whole [L, L]). The softmax goes over the keys block
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
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

HIDDEN = -1e30  # the logit of a key that is not seen; finite, so that nothing is ever infinity minus infinity
LOWEST = HIDDEN / 2  # where the maximum of a row starts: exp(HIDDEN - LOWEST) is exactly 0
TABLES = ("table_NRK", "value_table_NRH", "bias_N1R")


class Tiles(NamedTuple):
  """T, S: lengths before they were padded. width: W. causal: t sees s <= t + S - T. interpret: without a TPU."""

  T: int
  S: int
  width: int
  causal: bool
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
  return _forward(tiles, arrays | segments)[0]


def _attend_forward(tiles, arrays, segments):
  out_BNTH, lse_BN1T = _forward(tiles, arrays | segments)
  return out_BNTH, (arrays, segments, out_BNTH, lse_BN1T)


def _attend_backward(tiles, saved, gradient_BNTH):
  arrays, segments, out_BNTH, lse_BN1T = saved
  delta_BNT = jnp.sum(gradient_BNTH.astype(jnp.float32) * out_BNTH.astype(jnp.float32), -1)
  inputs = arrays | segments
  inputs |= {"gradient_BNTH": gradient_BNTH, "lse_BN1T": lse_BN1T, "delta_BN1T": delta_BNT[:, :, None]}
  queries, keys = ("q_BNTK", "position_BNTK"), ("k_BNSK", "v_BNSH")
  gradients = _backward(_backward_queries_kernel, tiles, queries, tiles.columns, _by_queries, inputs)
  gradients |= _backward(_backward_keys_kernel, tiles, keys, tiles.rows, _by_keys, inputs)
  gradients |= _backward_tables(tiles, inputs)
  return {name: gradients[name] for name in arrays}, None


attend.defvjp(_attend_forward, _attend_backward)


# Skewing, in registers


def skew(x_WU):
  """Relative to absolute: out[i, j] = x[i, j - i + W - 1]. Row i turns right by i + W + 1 places of 2 W."""
  W = len(x_WU)
  return pltpu.roll(x_WU, W + 1, 1, stride=1, stride_axis=0)[:, :W]


def unskew(x_WW):
  """The transpose of `skew`: out[i, j - i + W - 1] = x[i, j], zeros elsewhere. Row i turns right by W - 1 - i.

  A roll whose stride is negative does not exist. So the rows of each eight turn by 7 - i % 8 in three steps, and then
  each eight as a whole.
  """
  W = len(x_WW)
  x_WU = jnp.concatenate([x_WW, jnp.zeros_like(x_WW)], 1)
  turn_WU = 7 - jax.lax.broadcasted_iota(jnp.int32, x_WU.shape, 0) % 8
  for step in (1, 2, 4):
    x_WU = jnp.where(turn_WU & step != 0, pltpu.roll(x_WU, step, 1), x_WU)
  eights = [pltpu.roll(x_WU[i : i + 8], W - 8 - i, 1) for i in range(0, W, 8)]
  return jnp.concatenate(eights, 0)


# What the kernels share: refs is {name: block of that array}.


def _product(x, y, axes):
  """x . y over the axes given, sums in float32."""
  return jax.lax.dot_general(x, y, (axes, ((), ())), preferred_element_type=jnp.float32)


def _by_rows(x, y):
  """x y^T."""
  return _product(x, y, ((1,), (1,)))


def _times(weights, x):
  return _product(weights.astype(x.dtype), x, ((1,), (0,)))


def _turned_times(weights, x):
  return _product(weights.T.astype(x.dtype), x, ((1,), (0,)))


def _pair(refs, name):
  """Two neighbouring blocks of a table, as one."""
  axis = -1 if name.endswith("R") else 0
  return jnp.concatenate([ref[...] for ref in refs[name]], axis)


def _position(refs):
  return refs["position_BNTK" if "position_BNTK" in refs else "q_BNTK"]


def _logits(tiles, refs, i, j):
  """Logits of tile (i, j), HIDDEN where the key is not seen."""
  W = tiles.width
  logits_WW = _by_rows(refs["q_BNTK"][...], refs["k_BNSK"][...])
  relative_WU = []
  if "table_NRK" in refs:
    relative_WU.append(_by_rows(_position(refs)[...], _pair(refs, "table_NRK")))
  if "bias_N1R" in refs:
    relative_WU.append(jnp.broadcast_to(_pair(refs, "bias_N1R"), (W, 2 * W)))
  if relative_WU:
    logits_WW += skew(sum(relative_WU))
  t_WW = i * W + jax.lax.broadcasted_iota(jnp.int32, (W, W), 0)
  s_WW = j * W + jax.lax.broadcasted_iota(jnp.int32, (W, W), 1)
  visible = []
  if tiles.causal:
    visible.append(s_WW - t_WW <= tiles.S - tiles.T)
  if "query_segments_B1T" in refs:
    query_W1, key_1W = refs["query_segments_B1T"][...].T, refs["key_segments_B1S"][...]
    visible.append((query_W1 == key_1W) & (query_W1 > 0))
  elif tiles.S % W:
    visible.append(s_WW < tiles.S)
  return jnp.where(functools.reduce(jnp.logical_and, visible), logits_WW, HIDDEN) if visible else logits_WW


def _weights(tiles, refs, i, j):
  """(weights of tile (i, j), gradient of its logits), both computed anew."""
  weights_WW = jnp.exp(_logits(tiles, refs, i, j) - refs["lse_BN1T"][...].T)
  gradient_WH = refs["gradient_BNTH"][...]
  gradient_WW = _by_rows(gradient_WH, refs["v_BNSH"][...])
  if "value_table_NRH" in refs:
    gradient_WW += skew(_by_rows(gradient_WH, _pair(refs, "value_table_NRH")))
  return weights_WW, weights_WW * (gradient_WW - refs["delta_BN1T"][...].T)


def _spec(name, array, width, place):
  """The block of the array that a program gets, by the letters of the array's name: width positions of one head.

  place: (*program ids) -> {letter: number of the block}. Tables come in two blocks.
  """
  letters = name.rpartition("_")[2]
  sizes = {"B": None, "N": None, "T": width, "S": width, "R": width}
  block = tuple(sizes.get(letter, size) for letter, size in zip(letters, array.shape, strict=True))

  def index(further, *ids):
    blocks = place(*ids)
    blocks["R"] += further
    return tuple(0 if n == 1 else blocks.get(x, 0) for x, n in zip(letters, array.shape, strict=True))

  one, two = (pl.BlockSpec(block, functools.partial(index, further)) for further in (0, 1))
  return (one, two) if name in TABLES else one


def _call(kernel, tiles, grid, place, inputs, outputs, scratch, parallel):
  """outputs: {name: (shape, type)}; where a name is no input's, its blocks are of the first dimensions of the grid.

  The programs of the dimensions behind the first `parallel` run in turn and add up in scratch.
  """
  W = tiles.width
  shapes = {name: jax.ShapeDtypeStruct(*output) for name, output in outputs.items()}

  def out_spec(name, x):
    if name not in TABLES:
      return _spec(name, x, W, place)
    return pl.BlockSpec((None, None, *x.shape[2:]), lambda n, c, *_: (n, c, 0, 0))

  return pl.pallas_call(
    functools.partial(kernel, tiles),
    grid=grid,
    in_specs=[{name: _spec(name, x, W, place) for name, x in inputs.items()}],
    out_specs={name: out_spec(name, x) for name, x in shapes.items()},
    out_shape=shapes,
    scratch_shapes=[{name: pltpu.VMEM(shape, jnp.float32) for name, shape in scratch.items()}],
    compiler_params=pltpu.CompilerParams(
      dimension_semantics=("parallel",) * parallel + ("arbitrary",) * (len(grid) - parallel)
    ),
    interpret=tiles.interpret,
    name=kernel.__name__.strip("_"),
  )({name: (x, x) if name in TABLES else x for name, x in inputs.items()})


def _by_queries(tiles, b, n, i, j):
  """Blocks for programs (b, n, i, j). A tile that is hidden gets the last blocks again, which is no copy."""
  j = jnp.clip(j, 0, jnp.maximum(i + tiles.ahead, 0)) if tiles.causal else j
  return {"B": b, "N": n, "T": i, "S": j, "R": jnp.clip(j - i + tiles.rows - 1, 0, tiles.diagonals - 1)}


def _by_keys(tiles, b, n, j, i):
  i = jnp.clip(i, jnp.minimum(jnp.maximum(j - tiles.ahead, 0), tiles.rows - 1), None) if tiles.causal else i
  return {"B": b, "N": n, "T": i, "S": j, "R": jnp.clip(j - i + tiles.rows - 1, 0, tiles.diagonals - 1)}


# The kernels


def _forward(tiles, inputs):
  B, N, T, H = *inputs["q_BNTK"].shape[:3], inputs["v_BNSH"].shape[-1]
  W = tiles.width
  found = _call(
    _forward_kernel,
    tiles,
    (B, N, tiles.rows, tiles.columns),
    functools.partial(_by_queries, tiles),
    inputs,
    {"out_BNTH": ((B, N, T, H), inputs["q_BNTK"].dtype), "lse_BN1T": ((B, N, 1, T), jnp.float32)},
    {"maximum_W1": (W, 1), "sum_W1": (W, 1), "out_WH": (W, H)},
    parallel=3,
  )
  return found["out_BNTH"], found["lse_BN1T"]


def _forward_kernel(tiles, refs, outs, scratch):
  i, j = pl.program_id(2), pl.program_id(3)

  @pl.when(j == 0)
  def _start():
    scratch["maximum_W1"][...] = jnp.full_like(scratch["maximum_W1"], LOWEST)
    scratch["sum_W1"][...] = jnp.zeros_like(scratch["sum_W1"])
    scratch["out_WH"][...] = jnp.zeros_like(scratch["out_WH"])

  @pl.when(j - i <= tiles.ahead)
  def _tile():
    logits_WW = _logits(tiles, refs, i, j)
    before_W1 = scratch["maximum_W1"][...]
    maximum_W1 = jnp.maximum(before_W1, logits_WW.max(1, keepdims=True))
    weights_WW = jnp.exp(logits_WW - maximum_W1)
    kept_W1 = jnp.exp(before_W1 - maximum_W1)
    out_WH = _times(weights_WW, refs["v_BNSH"][...])
    if "value_table_NRH" in refs:
      out_WH += _times(unskew(weights_WW), _pair(refs, "value_table_NRH"))
    scratch["maximum_W1"][...] = maximum_W1
    scratch["sum_W1"][...] = scratch["sum_W1"][...] * kept_W1 + weights_WW.sum(1, keepdims=True)
    scratch["out_WH"][...] = scratch["out_WH"][...] * kept_W1 + out_WH

  @pl.when(j == tiles.columns - 1)
  def _end():
    sum_W1 = scratch["sum_W1"][...]
    sum_W1 = jnp.where(sum_W1 == 0, 1.0, sum_W1)  # of a row that may attend nowhere
    outs["out_BNTH"][...] = (scratch["out_WH"][...] / sum_W1).astype(outs["out_BNTH"].dtype)
    outs["lse_BN1T"][...] = (scratch["maximum_W1"][...] + jnp.log(sum_W1)).T


def _backward(kernel, tiles, wanted, columns, place, inputs):
  """Gradients of `wanted`, added up over the `columns` tiles of each program."""
  wanted = [name for name in wanted if name in inputs]
  B, N, length = inputs[wanted[0]].shape[:3]
  return _call(
    kernel,
    tiles,
    (B, N, length // tiles.width, columns),
    functools.partial(place, tiles),
    inputs,
    {name: (inputs[name].shape, inputs[name].dtype) for name in wanted},
    {name: (tiles.width, inputs[name].shape[-1]) for name in wanted},
    parallel=3,
  )


def _backward_queries_kernel(tiles, refs, outs, scratch):
  i, j = pl.program_id(2), pl.program_id(3)
  pl.when(j == 0)(lambda: _clear(scratch))

  @pl.when(j - i <= tiles.ahead)
  def _tile():
    _, gradient_WW = _weights(tiles, refs, i, j)
    scratch["q_BNTK"][...] += _times(gradient_WW, refs["k_BNSK"][...])
    if "table_NRK" in refs:
      _position(scratch)[...] += _times(unskew(gradient_WW), _pair(refs, "table_NRK"))

  pl.when(j == tiles.columns - 1)(lambda: _write(outs, scratch))


def _backward_keys_kernel(tiles, refs, outs, scratch):
  j, i = pl.program_id(2), pl.program_id(3)
  pl.when(i == 0)(lambda: _clear(scratch))

  @pl.when(j - i <= tiles.ahead)
  def _tile():
    weights_WW, gradient_WW = _weights(tiles, refs, i, j)
    scratch["k_BNSK"][...] += _turned_times(gradient_WW, refs["q_BNTK"][...])
    scratch["v_BNSH"][...] += _turned_times(weights_WW, refs["gradient_BNTH"][...])

  pl.when(i == tiles.rows - 1)(lambda: _write(outs, scratch))


def _backward_tables(tiles, inputs):
  """A program (n, c, m, i) is the tile of row i on the diagonal c, in row m of the batch, or of batch and heads where
  all heads share a table."""
  wanted = [name for name in TABLES if name in inputs]
  if not wanted:
    return {}
  B, N = inputs["q_BNTK"].shape[:2]
  heads, C, W = len(inputs[wanted[0]]), tiles.diagonals, tiles.width
  shared = N // heads

  def place(n, c, m, i):
    first = jnp.maximum(tiles.rows - 1 - c, 0)
    i = jnp.clip(i, first, jnp.minimum(first + tiles.columns, tiles.rows) - 1)
    j = jnp.clip(c + i - (tiles.rows - 1), 0, tiles.columns - 1)
    return {"B": m // shared, "N": n if shared == 1 else m % shared, "T": i, "S": j, "R": c}

  blocks = {name: (1, 2 * W) if name.endswith("R") else (2 * W, inputs[name].shape[-1]) for name in wanted}
  found = _call(
    _backward_tables_kernel,
    tiles,
    (heads, C, B * shared, tiles.rows),
    place,
    inputs,
    {name: ((heads, C, *block), jnp.float32) for name, block in blocks.items()},
    {},
    parallel=2,
  )

  def joined(name):
    """The rows of neighbouring diagonals overlap by one block."""
    axis = 3 if name.endswith("R") else 2
    first, second = jnp.split(found[name], 2, axis)
    rest = ((0, 0),) * 2
    whole = jnp.pad(first, ((0, 0), (0, 1), *rest)) + jnp.pad(second, ((0, 0), (1, 0), *rest))
    return whole.reshape(inputs[name].shape).astype(inputs[name].dtype)

  return {name: joined(name) for name in wanted}


def _backward_tables_kernel(tiles, refs, outs, scratch):
  c, m, i = pl.program_id(1), pl.program_id(2), pl.program_id(3)
  j = c + i - (tiles.rows - 1)
  pl.when((m == 0) & (i == 0))(lambda: _clear(outs))

  @pl.when((j >= 0) & (j < tiles.columns))
  def _tile():
    weights_WW, gradient_WW = _weights(tiles, refs, i, j)
    if "table_NRK" in refs or "bias_N1R" in refs:
      gradient_WU = unskew(gradient_WW)
    if "table_NRK" in refs:
      outs["table_NRK"][...] += _turned_times(gradient_WU, _position(refs)[...])
    if "bias_N1R" in refs:
      outs["bias_N1R"][...] += gradient_WU.sum(0, keepdims=True)
    if "value_table_NRH" in refs:
      outs["value_table_NRH"][...] += _turned_times(unskew(weights_WW), refs["gradient_BNTH"][...])


def _clear(refs):
  for ref in refs.values():
    ref[...] = jnp.zeros_like(ref)


def _write(outs, scratch):
  for name, out in outs.items():
    out[...] = scratch[name][...].astype(out.dtype)
