"""Recurrent layers: the plain RNN, the LSTM and the GRU, scanned over time; and any other recurrence as cheaply.

Letters beside the house's: F hidden units, A the gates' pre-activations side by side (F, GRU 3F, LSTM 4F), U the cells
of a layer whose output is projected to F units; its A is then of U.

The inputs of all steps are projected in one product before the scan; only the product with the previous state
is sequential. The state is carried in float32 whatever the dtype of the inputs. The gradient of recurrent_FA too is
one product after the scan: summed up step by step, it would be all-reduced at every step where devices share the rows.
`scan` does that for every recurrence, a decoder with attention in its steps among them.

Cost of a layer, with n steps of width D: time O(n F (D + F)), n steps one after the other, memory O(n F).
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from attention_zoo.ops import shapes


class Cell(NamedTuple):
  """One step of a recurrence: its equations, and which products with the previous state they take.

  step: (multiply, state) -> state; multiply(name, h_BF) is x W + b + h U, but for the columns of that block alone.
  blocks: name -> how many F columns of U it has, in order. num_states: arrays BF of the state; the first is the output.
  """

  step: Callable
  blocks: dict[str, int]
  num_states: int

  @property
  def width(self) -> int:
    """A / F."""
    return sum(self.blocks.values())

  def split(self, x_FA) -> dict:
    """The columns of each block, by its name; of any array whose last dimension is A."""
    F, ends = x_FA.shape[-1] // self.width, [sum([*self.blocks.values()][:i]) for i in range(1, len(self.blocks))]
    return dict(zip(self.blocks, jnp.split(x_FA, [F * end for end in ends], axis=-1), strict=True))


def _rnn_step(multiply, state):
  return (jnp.tanh(multiply("recurrent", state[0])),)


def _lstm_step(multiply, state):
  h_BF, c_BF = state
  i_BF, f_BF, g_BF, o_BF = jnp.split(multiply("recurrent", h_BF), 4, axis=-1)
  c_BF = jax.nn.sigmoid(f_BF) * c_BF + jax.nn.sigmoid(i_BF) * jnp.tanh(g_BF)
  return jax.nn.sigmoid(o_BF) * jnp.tanh(c_BF), c_BF


def _gru_step(multiply, state):
  (h_BF,) = state
  r_BF, z_BF = jnp.split(jax.nn.sigmoid(multiply("gates", h_BF)), 2, axis=-1)
  candidate_BF = jnp.tanh(multiply("candidate", r_BF * h_BF))
  return (z_BF * h_BF + (1 - z_BF) * candidate_BF,)


CELLS = {
  "rnn": Cell(_rnn_step, {"recurrent": 1}, 1),
  "gru": Cell(_gru_step, {"gates": 2, "candidate": 1}, 1),
  "lstm": Cell(_lstm_step, {"recurrent": 4}, 2),
}


def rnn_cell(projected_BA, state, recurrent_FA):
  """One step of the plain (Elman 1990) RNN: h' = tanh(x W + b + h U).

  state is (h_BF,); returns the next state. projected_BA: x W + b, with A = F. Cost: time O(B F^2).
  """
  return _one_step(CELLS["rnn"], projected_BA, state, recurrent_FA)


def lstm_cell(projected_BA, state, recurrent_FA):
  """One step of the LSTM (Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000).

    i, f, g, o = x W + b + h U;  c' = sigmoid(f) c + sigmoid(i) tanh(g);  h' = sigmoid(o) tanh(c')

  state is (h_BF, c_BF); returns the next state. projected_BA: x W + b, with A = 4F in the order i, f, g, o.
  Cost: time O(B F^2).
  """
  return _one_step(CELLS["lstm"], projected_BA, state, recurrent_FA)


def gru_cell(projected_BA, state, recurrent_FA):
  """One step of the gated recurrent unit (Cho et al. 2014, eq. 5-8; the reset gate acts before the product).

    r = sigmoid(x W_r + b_r + h U_r);  z = sigmoid(x W_z + b_z + h U_z)
    h' = z h + (1 - z) tanh(x W_h + b_h + (r h) U_h)

  state is (h_BF,); returns the next state. projected_BA: x W + b, with A = 3F in the order r, z, h.
  Cost: time O(B F^2).
  """
  return _one_step(CELLS["gru"], projected_BA, state, recurrent_FA)


def _one_step(cell, projected_BA, state, recurrent_FA):
  added, kernels = cell.split(projected_BA), cell.split(recurrent_FA)
  return cell.step(lambda name, h_BF: added[name] + product(h_BF, kernels[name]), state)


def rnn(x_BTD, input_DA, recurrent_FA, bias_A, **options):
  """`rnn_cell` over time, A = F. Arguments, returns, errors: see `lstm`; state is (h_BF,)."""
  return layer("rnn", x_BTD, input_DA, recurrent_FA, bias_A, **options)


def gru(x_BTD, input_DA, recurrent_FA, bias_A, **options):
  """`gru_cell` over time, A = 3F. Arguments, returns, errors: see `lstm`; state is (h_BF,)."""
  return layer("gru", x_BTD, input_DA, recurrent_FA, bias_A, **options)


def lstm(x_BTD, input_DA, recurrent_FA, bias_A, **options):
  """`lstm_cell` over time, A = 4F.

  x_BTD: inputs. input_DA, recurrent_FA, bias_A: W, U, b. Options:
    mask_BT: bool, True = a real step; a padded step passes on the state it begins with and puts out zeros.
    state: (h_BF, c_BF) before the first step, zeros if None.
    reset_BT, starts: bool, True = a step that begins anew, from the state in `starts` (each BTF; zeros if None) instead
      of the previous step's: where several texts share a row.
    stop_BT: bool, True = a step to which the state before it is a constant: gradients end there.
    reverse: from the last step to the first: padded on the right, each sentence then starts at its own last word.
    return_states: the state after every step, BTF each, in the place of the state after the last.

  Returns (h_BTF in the dtype of x, the state after the last step in float32). Raises ValueError for an
  argument whose shape or dtype does not fit.

  Cost: see the module.
  """
  return layer("lstm", x_BTD, input_DA, recurrent_FA, bias_A, **options)


def layer(name, x_BTD, input_DA, recurrent_FA, bias_A, **options):
  """`rnn`, `gru` or `lstm`, by its name."""
  shapes.check(x_BTD=x_BTD, recurrent_FA=recurrent_FA, input_DA=input_DA, bias_A=bias_A)
  projected_BTA = product(x_BTD, input_DA) + bias_A.astype(jnp.float32)[None, None]
  h_BTF, state = of_projected(name, projected_BTA, recurrent_FA, **options)
  return h_BTF.astype(x_BTD.dtype), state


def of_projected(
  name, projected_BTA, recurrent_FA, *, mask_BT=None, state=None, reset_BT=None, starts=None, stop_BT=None,
  reverse=False, return_states=False, projection_UF=None,
):  # fmt: skip
  """`layer` of inputs that are projected already: x W + b, float32. Its output is float32, too.

  projection_UF: what the output of the cells is multiplied by before it goes up and back (Sak et al. 2014).
  """
  cell = CELLS[name]
  sizes = shapes.check(
    projected_BTA=projected_BTA, recurrent_FA=recurrent_FA, mask_BT=mask_BT, reset_BT=reset_BT, stop_BT=stop_BT,
    projection_UF=projection_UF,
  )  # fmt: skip
  shapes.check_mask(mask_BT=mask_BT, reset_BT=reset_BT, stop_BT=stop_BT)
  B, T, F = sizes["B"], sizes["T"], sizes["F"]
  U = F if projection_UF is None else sizes["U"]
  if sizes["A"] != cell.width * U:
    raise ValueError(f"recurrent_FA has shape {recurrent_FA.shape}, wanted FA = {(F, cell.width * U)}")
  widths = (F, *[U] * (cell.num_states - 1))
  if state is None:
    state = tuple(jnp.zeros((B, width), jnp.float32) for width in widths)
  for what, arrays, letters, leading in (("state", state, "BF", (B,)), ("starts", starts, "BTF", (B, T))):
    if arrays is not None and [part.shape for part in arrays] != [(*leading, width) for width in widths]:
      got = [part.shape for part in arrays]
      raise ValueError(f"{what} has shapes {got}, wanted {cell.num_states} of {letters} = {(*leading, F)}")

  if starts is not None and reset_BT is None:
    raise ValueError("starts are for the steps that reset_BT marks, and it is None")

  def step(multiply, state, inputs, _):
    real_B1, reset_B1, stop_B1, starts = inputs
    if stop_B1 is not None:
      state = tuple(jnp.where(stop_B1, jax.lax.stop_gradient(part), part) for part in state)
    if reset_B1 is not None:
      starts = (0.0,) * len(state) if starts is None else starts
      state = tuple(jnp.where(reset_B1, a, b) for a, b in zip(starts, state, strict=True))
    new = cell.step(multiply, state)
    if projection_UF is not None:
      new = (multiply("projection", new[0]), *new[1:])
    out = new if return_states else new[:1]
    if real_B1 is not None:
      new = tuple(jnp.where(real_B1, a, b) for a, b in zip(new, state, strict=True))
      out = tuple(jnp.where(real_B1, a, 0.0) for a in out)
    return new, out

  added = cell.split(projected_BTA.swapaxes(0, 1))
  marks = [None if mark_BT is None else mark_BT.T[:, :, None] for mark_BT in (mask_BT, reset_BT, stop_BT)]
  starts = None if starts is None else tuple(start.astype(jnp.float32).swapaxes(0, 1) for start in starts)
  state = tuple(part.astype(jnp.float32) for part in state)
  kernels = cell.split(recurrent_FA) | ({} if projection_UF is None else {"projection": projection_UF})
  state, states = scan(step, kernels, added, state, (*marks, starts), reverse=reverse)
  states = tuple(part_TBF.swapaxes(0, 1) for part_TBF in states)
  return states[0], states if return_states else state


def product(x_BF, kernel_FA):
  """x of any leading dimensions times a kernel, in the kernel's type with float32 sums."""
  return jnp.matmul(x_BF.astype(kernel_FA.dtype), kernel_FA, preferred_element_type=jnp.float32)


def scan(step, kernels, added, state, inputs=None, context=None, *, reverse=False):
  """`jax.lax.scan` of a recurrence whose kernels get their gradients in one product each, after the scan.

  step: (multiply, state, inputs, context) -> (state, outputs), where multiply(name, x) is
    x @ kernels[name] + added[name] (float32, x of any leading dimensions), each name at most once a step. It must hold
    no traced array but these.
  added: name -> what is added to that product at each step, time first; names that nothing is added to are left out.
  inputs: of each step, time first. context: what all steps read; its gradient is summed up step by step, so that
    a parameter is better given to it once for each row (`jnp.broadcast_to`), or to kernels.

  Returns (state after the last step, outputs of all steps, time first). Cost: that of the steps; with gradients the
  memory of each product's operand and result at every step.
  """
  return _scan(step, reverse, kernels, added, state, inputs, context)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _scan(step, reverse, kernels, added, state, inputs, context):
  return _steps(step, reverse, kernels, added, {}, state, inputs, context)[0]


def _steps(step, reverse, kernels, added, taps, state, inputs, context):
  """((state, outputs), name -> what that kernel was multiplied by at every step)."""

  def one(state, now):
    added, taps, inputs = now
    factors = {}

    def multiply(name, x):
      if name in factors:
        raise ValueError(f"the kernel {name!r} is multiplied twice in a step")
      factors[name] = x.astype(kernels[name].dtype)
      y = product(x, kernels[name])
      if name in added:
        return y + added[name]
      return _tap(y, taps[name]) if name in taps else y

    state, outputs = step(multiply, state, inputs, context)
    return state, (outputs, factors)

  state, (outputs, factors) = jax.lax.scan(one, state, (added, taps, inputs), reverse=reverse)
  return (state, outputs), factors


@jax.custom_vjp
def _tap(y, tap):
  """y; the gradient of `tap` is that of y."""
  return y


_tap.defvjp(lambda y, tap: (y, None), lambda _, gradient: (gradient, gradient))


def _forward(step, reverse, kernels, added, state, inputs, context):
  steps = functools.partial(_steps, step, reverse, kernels)
  factors = jax.eval_shape(lambda *a: steps(*a)[1], added, {}, state, inputs, context)
  # The value of a tap is not looked at: nothing of this size exists, but for the gradient.
  taps = {
    name: jnp.zeros((*factors[name].shape[:-1], kernel_FA.shape[1]), jnp.float32)
    for name, kernel_FA in kernels.items()
    if name in factors and name not in added
  }
  out, pull, factors = jax.vjp(steps, added, taps, state, inputs, context, has_aux=True)
  return out, (pull, factors, kernels)


def _backward(step, reverse, residuals, cotangents):
  pull, factors, kernels = residuals
  added, taps, state, inputs, context = pull(cotangents)

  def gradient(name, kernel_FA):
    # What is added to a product gets the product's gradient.
    if name not in factors:
      return jnp.zeros_like(kernel_FA)
    x, y = factors[name], (added | taps)[name].astype(kernel_FA.dtype)
    leading = (tuple(range(x.ndim - 1)),) * 2
    return jax.lax.dot_general(x, y, (leading, ((), ())), preferred_element_type=jnp.float32).astype(kernel_FA.dtype)

  return {name: gradient(name, kernel_FA) for name, kernel_FA in kernels.items()}, added, state, inputs, context


_scan.defvjp(_forward, _backward)
