"""The kernels of relative attention for GPUs (Triton): one program walks over the tiles that add up to its result.

Triton has no roll. A program skews through a strip of global memory of its own, [W, 2 W], written as it is and read
with every row shifted, between barriers: small enough to stay in the cache, and O(T + S) in all, one strip a program.

Nothing takes them unless asked to. On an H100 (512 positions, bfloat16) Music's value and gradients are within 4e-3 of
float32 einsums, but **not the same bits twice**: somewhere threads race, and where is not known
(`benchmarks/README.md`, H100).

Letters beside the house's: U two blocks side by side, the distances that a tile reaches.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

from attention_zoo.ops.kernels.relative_tiles import LOWEST, TABLES, logits, position, times, weights

try:
  from jax.experimental.pallas import triton
except ImportError:  # a JAX without this lowering; `relative.runs` says no
  triton = None


WARPS = 4  # of a program


class _Blocks:
  """Reads what tile (i, j) of head n in row b needs; c is its diagonal.

  kept: blocks that stay the same while a program walks, by name. The other names are read from refs.
  """

  def __init__(self, tiles, refs, strip_ref, b, n, i, j, kept=None):
    self.tiles, self.refs, self.strip_ref, self.kept = tiles, refs, strip_ref, kept or {}
    self.blocks = {"B": b, "N": n, "T": i, "S": j, "R": j - i + tiles.rows - 1}

  def __contains__(self, name):
    return name in self.refs

  def __call__(self, name):
    return self.kept[name] if name in self.kept else self._read(name, 1)

  def pair(self, name):
    return self._read(name, 2)

  def column(self, name):
    return self(name).T

  def _read(self, name, blocks):
    W, ref = self.tiles.width, self.refs[name]

    def place(letter, size):
      if letter in "BN":
        return 0 if size == 1 else self.blocks[letter]
      return pl.ds(self.blocks[letter] * W, blocks * W) if letter in "TSR" else slice(None)

    letters = name.rpartition("_")[2]
    return ref[tuple(place(letter, size) for letter, size in zip(letters, ref.shape, strict=True))]

  def skew(self, x_WU):
    """out[i, j] = x[i, j - i + W - 1]"""
    i_WW, j_WW = _places(self.tiles.width, 1)
    return self._through_strip(x_WU, i_WW, j_WW - i_WW + self.tiles.width - 1, None)

  def unskew(self, x_WW):
    """out[i, j - i + W - 1] = x[i, j], zeros elsewhere"""
    i_WU, r_WU = _places(self.tiles.width, 2)
    j_WU = r_WU + i_WU - (self.tiles.width - 1)
    return self._through_strip(x_WW, i_WU, j_WU, (j_WU >= 0) & (j_WU < self.tiles.width))

  def _through_strip(self, x, rows, columns, inside):
    self._barrier()
    triton.store(self.strip_ref.at[:, pl.ds(0, x.shape[1])], x)
    self._barrier()
    if inside is None:
      return triton.load(self.strip_ref.at[rows, columns])
    return triton.load(self.strip_ref.at[rows, jnp.where(inside, columns, 0)], mask=inside, other=0.0)

  def _barrier(self):
    if not self.tiles.interpret:
      triton.debug_barrier()  # of the threads of a program


def _places(W, blocks):
  shape = (W, blocks * W)
  return lax.broadcasted_iota(jnp.int32, shape, 0), lax.broadcasted_iota(jnp.int32, shape, 1)


def _call(kernel, tiles, grid, inputs, outputs):
  """outputs: {name: (shape, type, block, index)}; every program gets the inputs whole, and a strip."""
  W = tiles.width
  strip = ((*grid, W, 2 * W), jnp.float32, (None, None, None, W, 2 * W), lambda *ids: (*ids, 0, 0))
  outputs = outputs | {"strip": strip}
  found = pl.pallas_call(
    functools.partial(kernel, tiles),
    grid=grid,
    out_specs={name: pl.BlockSpec(*output[2:]) for name, output in outputs.items()},
    out_shape={name: jax.ShapeDtypeStruct(*output[:2]) for name, output in outputs.items()},
    # One stage: loads must not be moved before the barriers.
    compiler_params=triton.CompilerParams(num_warps=WARPS, num_stages=1),
    interpret=tiles.interpret,
    name=kernel.__name__.strip("_"),
  )(inputs)
  del found["strip"]
  return found


def _own(name, array, width):
  """An output of which program (i, n, b) owns block i."""
  if name.endswith("1T"):
    return array.shape, array.dtype, (None, None, 1, width), lambda i, n, b: (b, n, 0, i)
  return array.shape, array.dtype, (None, None, width, array.shape[3]), lambda i, n, b: (b, n, i, 0)


def forward(tiles, inputs):
  B, N, T, H = *inputs["q_BNTK"].shape[:3], inputs["v_BNSH"].shape[-1]
  outputs = {
    "out_BNTH": jax.ShapeDtypeStruct((B, N, T, H), inputs["q_BNTK"].dtype),
    "lse_BN1T": jax.ShapeDtypeStruct((B, N, 1, T), jnp.float32),
  }
  outputs = {name: _own(name, x, tiles.width) for name, x in outputs.items()}
  found = _call(_forward_kernel, tiles, (tiles.rows, N, B), inputs, outputs)
  return found["out_BNTH"], found["lse_BN1T"]


def _columns(tiles, i):
  """How many tiles of row i have a pair that may attend."""
  return jnp.clip(i + tiles.ahead + 1, 0, tiles.columns)


def _forward_kernel(tiles, refs, outs):
  i, n, b = (pl.program_id(axis) for axis in range(3))
  blocks = functools.partial(_Blocks, tiles, refs, outs["strip"], b, n, i)
  kept = _keep(blocks(0), "q_BNTK", "position_BNTK")
  W, H = tiles.width, refs["v_BNSH"].shape[3]

  def step(j, carry):
    before_W, sum_W, out_WH = carry
    at = blocks(j, kept)
    logits_WW = logits(tiles, at, i, j)
    maximum_W = jnp.maximum(before_W, logits_WW.max(1))
    weights_WW = jnp.exp(logits_WW - maximum_W[:, None])
    kept_W = jnp.exp(before_W - maximum_W)
    out_WH = out_WH * kept_W[:, None] + times(weights_WW, at("v_BNSH"))
    if "value_table_NRH" in refs:
      out_WH += times(at.unskew(weights_WW), at.pair("value_table_NRH"))
    return maximum_W, sum_W * kept_W + weights_WW.sum(1), out_WH

  zeros_W = jnp.zeros(W, jnp.float32)
  start = zeros_W + LOWEST, zeros_W, jnp.zeros((W, H), jnp.float32)
  maximum_W, sum_W, out_WH = lax.fori_loop(0, _columns(tiles, i), step, start)
  sum_W = jnp.where(sum_W == 0, 1.0, sum_W)  # of a row that may attend nowhere
  outs["out_BNTH"][...] = (out_WH / sum_W[:, None]).astype(outs["out_BNTH"].dtype)
  outs["lse_BN1T"][...] = (maximum_W + jnp.log(sum_W))[None, :]


def _keep(at, *names):
  return {name: at(name) for name in names if name in at}


def backward(tiles, inputs):
  """{name: gradient}; a table's is that of each diagonal."""
  B, N = inputs["q_BNTK"].shape[:2]

  def gradients(kernel, programs, *names):
    outputs = {name: _own(name, inputs[name], tiles.width) for name in names if name in inputs}
    return _call(kernel, tiles, (programs, N, B), inputs, outputs)

  found = gradients(_backward_queries_kernel, tiles.rows, "q_BNTK", "position_BNTK")
  found |= gradients(_backward_keys_kernel, tiles.columns, "k_BNSK", "v_BNSH")
  return found | _backward_tables(tiles, inputs)


def _backward_queries_kernel(tiles, refs, outs):
  i, n, b = (pl.program_id(axis) for axis in range(3))
  blocks = functools.partial(_Blocks, tiles, refs, outs["strip"], b, n, i)
  kept = _keep(blocks(0), "q_BNTK", "position_BNTK", "gradient_BNTH", "lse_BN1T", "delta_BN1T")

  def step(j, sums):
    at = blocks(j, kept)
    _, gradient_WW = weights(tiles, at, i, j)
    more = {"q_BNTK": times(gradient_WW, at("k_BNSK"))}
    if "table_NRK" in refs:
      name = position(refs)
      product_WK = times(at.unskew(gradient_WW), at.pair("table_NRK"))
      more[name] = more[name] + product_WK if name in more else product_WK
    return {name: x + more[name] if name in more else x for name, x in sums.items()}

  _walk(outs, 0, _columns(tiles, i), step)


def _backward_keys_kernel(tiles, refs, outs):
  j, n, b = (pl.program_id(axis) for axis in range(3))
  blocks = lambda i, kept=None: _Blocks(tiles, refs, outs["strip"], b, n, i, j, kept)
  kept = _keep(blocks(0), "k_BNSK", "v_BNSH")

  def step(i, sums):
    at = blocks(i, kept)
    weights_WW, gradient_WW = weights(tiles, at, i, j)
    return {
      "k_BNSK": sums["k_BNSK"] + times(gradient_WW.T, at("q_BNTK")),
      "v_BNSH": sums["v_BNSH"] + times(weights_WW.T, at("gradient_BNTH")),
    }

  _walk(outs, jnp.maximum(j - tiles.ahead, 0), tiles.rows, step)


def _backward_tables(tiles, inputs):
  """Program (c, n, 0) owns the diagonal c of the tables of head n, or of all heads where they share them."""
  wanted = [name for name in TABLES if name in inputs]
  if not wanted:
    return {}
  heads, C, W = len(inputs[wanted[0]]), tiles.diagonals, tiles.width
  outputs = {}
  for name in wanted:
    block = (1, 2 * W) if name.endswith("R") else (2 * W, inputs[name].shape[2])
    outputs[name] = ((heads, C, *block), jnp.float32, (None, None, *block), lambda c, n, _: (n, c, 0, 0))
  return _call(_backward_tables_kernel, tiles, (C, heads, 1), inputs, outputs)


def _backward_tables_kernel(tiles, refs, outs):
  c, head = pl.program_id(0), pl.program_id(1)
  B, N = refs["q_BNTK"].shape[:2]
  shared = 1 if pl.num_programs(1) == N else N
  first = jnp.maximum(tiles.rows - 1 - c, 0)
  length = jnp.minimum(tiles.columns - (c + first - (tiles.rows - 1)), tiles.rows - first)

  def step(m, sums):
    row, i = lax.div(m, length), first + lax.rem(m, length)
    b, n = (row, head) if shared == 1 else (lax.div(row, shared), lax.rem(row, shared))
    at = _Blocks(tiles, refs, outs["strip"], b, n, i, c + i - (tiles.rows - 1))
    weights_WW, gradient_WW = weights(tiles, at, i, c + i - (tiles.rows - 1))
    sums = dict(sums)
    if "table_NRK" in refs or "bias_N1R" in refs:
      gradient_WU = at.unskew(gradient_WW)
    if "table_NRK" in refs:
      sums["table_NRK"] += times(gradient_WU.T, at(position(refs)))
    if "bias_N1R" in refs:
      sums["bias_N1R"] += gradient_WU.sum(0)[None, :]
    if "value_table_NRH" in refs:
      sums["value_table_NRH"] += times(at.unskew(weights_WW).T, at("gradient_BNTH"))
    return sums

  _walk(outs, 0, length * B * shared, step)


def _walk(outs, first, end, step):
  """Adds up what step(i, sums) does, and writes it."""
  sums = {name: jnp.zeros(out.shape, jnp.float32) for name, out in outs.items() if name != "strip"}
  sums = lax.fori_loop(first, end, step, sums)
  for name, x in sums.items():
    outs[name][...] = x.astype(outs[name].dtype)
