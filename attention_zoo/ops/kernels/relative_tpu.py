"""The kernels of relative attention for TPUs (Mosaic): the tiles of one program run in turn and add up in scratch.

Letters beside the house's: U two blocks side by side, the distances that a tile reaches.
"""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from attention_zoo.ops.kernels.relative_tiles import LOWEST, TABLES, logits, position, times, weights


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


class _Blocks:
  """refs: {name: block of that array}."""

  def __init__(self, refs):
    self.refs = refs

  def __contains__(self, name):
    return name in self.refs

  def __call__(self, name):
    return self.refs[name][...]

  def column(self, name):
    """One number for each query, [W, 1]."""
    return self(name).T

  def pair(self, name):
    """Two neighbouring blocks of a table, as one."""
    return jnp.concatenate([ref[...] for ref in self.refs[name]], 1 if name.endswith("R") else 0)

  skew, unskew = staticmethod(skew), staticmethod(unskew)


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


def forward(tiles, inputs):
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
    at = _Blocks(refs)
    logits_WW = logits(tiles, at, i, j)
    before_W1 = scratch["maximum_W1"][...]
    maximum_W1 = jnp.maximum(before_W1, logits_WW.max(1, keepdims=True))
    weights_WW = jnp.exp(logits_WW - maximum_W1)
    kept_W1 = jnp.exp(before_W1 - maximum_W1)
    out_WH = times(weights_WW, at("v_BNSH"))
    if "value_table_NRH" in refs:
      out_WH += times(unskew(weights_WW), at.pair("value_table_NRH"))
    scratch["maximum_W1"][...] = maximum_W1
    scratch["sum_W1"][...] = scratch["sum_W1"][...] * kept_W1 + weights_WW.sum(1, keepdims=True)
    scratch["out_WH"][...] = scratch["out_WH"][...] * kept_W1 + out_WH

  @pl.when(j == tiles.columns - 1)
  def _end():
    sum_W1 = scratch["sum_W1"][...]
    sum_W1 = jnp.where(sum_W1 == 0, 1.0, sum_W1)  # of a row that may attend nowhere
    outs["out_BNTH"][...] = (scratch["out_WH"][...] / sum_W1).astype(outs["out_BNTH"].dtype)
    outs["lse_BN1T"][...] = (scratch["maximum_W1"][...] + jnp.log(sum_W1)).T


def backward(tiles, inputs):
  """{name: gradient}; a table's is that of each diagonal."""
  queries, keys = ("q_BNTK", "position_BNTK"), ("k_BNSK", "v_BNSH")
  gradients = _backward(_backward_queries_kernel, tiles, queries, tiles.columns, _by_queries, inputs)
  gradients |= _backward(_backward_keys_kernel, tiles, keys, tiles.rows, _by_keys, inputs)
  return gradients | _backward_tables(tiles, inputs)


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
    at = _Blocks(refs)
    _, gradient_WW = weights(tiles, at, i, j)
    scratch["q_BNTK"][...] += times(gradient_WW, at("k_BNSK"))
    if "table_NRK" in refs:
      scratch[position(refs)][...] += times(unskew(gradient_WW), at.pair("table_NRK"))

  pl.when(j == tiles.columns - 1)(lambda: _write(outs, scratch))


def _backward_keys_kernel(tiles, refs, outs, scratch):
  j, i = pl.program_id(2), pl.program_id(3)
  pl.when(i == 0)(lambda: _clear(scratch))

  @pl.when(j - i <= tiles.ahead)
  def _tile():
    at = _Blocks(refs)
    weights_WW, gradient_WW = weights(tiles, at, i, j)
    scratch["k_BNSK"][...] += times(gradient_WW.T, at("q_BNTK"))
    scratch["v_BNSH"][...] += times(weights_WW.T, at("gradient_BNTH"))

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
  return _call(
    _backward_tables_kernel,
    tiles,
    (heads, C, B * shared, tiles.rows),
    place,
    inputs,
    {name: ((heads, C, *block), jnp.float32) for name, block in blocks.items()},
    {},
    parallel=2,
  )


def _backward_tables_kernel(tiles, refs, outs, scratch):
  c, m, i = pl.program_id(1), pl.program_id(2), pl.program_id(3)
  j = c + i - (tiles.rows - 1)
  pl.when((m == 0) & (i == 0))(lambda: _clear(outs))

  @pl.when((j >= 0) & (j < tiles.columns))
  def _tile():
    at = _Blocks(refs)
    weights_WW, gradient_WW = weights(tiles, at, i, j)
    if "table_NRK" in refs or "bias_N1R" in refs:
      gradient_WU = unskew(gradient_WW)
    if "table_NRK" in refs:
      outs["table_NRK"][...] += times(gradient_WU.T, at(position(refs)))
    if "bias_N1R" in refs:
      outs["bias_N1R"][...] += gradient_WU.sum(0, keepdims=True)
    if "value_table_NRH" in refs:
      outs["value_table_NRH"][...] += times(unskew(weights_WW).T, at("gradient_BNTH"))


def _clear(refs):
  for ref in refs.values():
    ref[...] = jnp.zeros_like(ref)


def _write(outs, scratch):
  for name, out in outs.items():
    out[...] = scratch[name][...].astype(out.dtype)
