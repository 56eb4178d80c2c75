"""Recurrent layers: the plain RNN, the LSTM and the GRU, scanned over time.

Letters beside the house's: F hidden units, A the gates' pre-activations side by side (F, GRU 3F, LSTM 4F).

The inputs of all steps are projected in one product before the scan; only the product with the previous state
is sequential. The state is carried in float32 whatever the dtype of the inputs. The gradient of recurrent_FA too is
one product after the scan: summed up step by step, it would be all-reduced at every step where devices share the rows.

Cost of a layer, with n steps of width D: time O(n F (D + F)), n steps one after the other, memory O(n F).
"""

import functools

import jax
import jax.numpy as jnp

from attention_zoo.ops import shapes


def rnn_cell(projected_BA, state, recurrent_FA):
  """One step of the plain (Elman 1990) RNN: h' = tanh(x W + b + h U).

  state is (h_BF,); returns the next state. projected_BA: x W + b, with A = F. Cost: time O(B F^2).
  """
  (h_BF,) = state
  return (jnp.tanh(projected_BA + _product(h_BF, recurrent_FA)),)


def lstm_cell(projected_BA, state, recurrent_FA):
  """One step of the LSTM (Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000).

    i, f, g, o = x W + b + h U;  c' = sigmoid(f) c + sigmoid(i) tanh(g);  h' = sigmoid(o) tanh(c')

  state is (h_BF, c_BF); returns the next state. projected_BA: x W + b, with A = 4F in the order i, f, g, o.
  Cost: time O(B F^2).
  """
  h_BF, c_BF = state
  i_BF, f_BF, g_BF, o_BF = jnp.split(projected_BA + _product(h_BF, recurrent_FA), 4, axis=-1)
  c_BF = jax.nn.sigmoid(f_BF) * c_BF + jax.nn.sigmoid(i_BF) * jnp.tanh(g_BF)
  return jax.nn.sigmoid(o_BF) * jnp.tanh(c_BF), c_BF


def gru_cell(projected_BA, state, recurrent_FA):
  """One step of the gated recurrent unit (Cho et al. 2014, eq. 5-8; the reset gate acts before the product).

    r = sigmoid(x W_r + b_r + h U_r);  z = sigmoid(x W_z + b_z + h U_z)
    h' = z h + (1 - z) tanh(x W_h + b_h + (r h) U_h)

  state is (h_BF,); returns the next state. projected_BA: x W + b, with A = 3F in the order r, z, h.
  Cost: time O(B F^2).
  """
  return _gru_cell(projected_BA, state, recurrent_FA)[0]


def _gru_cell(projected_BA, state, recurrent_FA):
  """(the next state, what is multiplied by each block of columns of recurrent_FA)."""
  (h_BF,) = state
  F = h_BF.shape[-1]
  gates_BA = jax.nn.sigmoid(projected_BA[:, : 2 * F] + _product(h_BF, recurrent_FA[:, : 2 * F]))
  r_BF, z_BF = jnp.split(gates_BA, 2, axis=-1)
  reset_BF = r_BF * h_BF
  candidate_BF = jnp.tanh(projected_BA[:, 2 * F :] + _product(reset_BF, recurrent_FA[:, 2 * F :]))
  return (z_BF * h_BF + (1 - z_BF) * candidate_BF,), (h_BF, reset_BF)


def _of_previous(cell):
  """A cell that multiplies all of recurrent_FA by the previous state, in the form of `_gru_cell`."""
  return lambda projected_BA, state, recurrent_FA: (cell(projected_BA, state, recurrent_FA), (state[0],))


def rnn(x_BTD, input_DA, recurrent_FA, bias_A, *, mask_BT=None, state=None, reverse=False):
  """`rnn_cell` over time, A = F. Arguments, returns, errors: see `lstm`; state is (h_BF,)."""
  return _scan(_of_previous(rnn_cell), (1,), 1, x_BTD, input_DA, recurrent_FA, bias_A, mask_BT, state, reverse)


def gru(x_BTD, input_DA, recurrent_FA, bias_A, *, mask_BT=None, state=None, reverse=False):
  """`gru_cell` over time, A = 3F. Arguments, returns, errors: see `lstm`; state is (h_BF,)."""
  return _scan(_gru_cell, (2, 1), 1, x_BTD, input_DA, recurrent_FA, bias_A, mask_BT, state, reverse)


def lstm(x_BTD, input_DA, recurrent_FA, bias_A, *, mask_BT=None, state=None, reverse=False):
  """`lstm_cell` over time, A = 4F.

  x_BTD: inputs. input_DA, recurrent_FA, bias_A: W, U, b. mask_BT: bool, True = a real step; a padded step
  passes the state on and puts out zeros. state: (h_BF, c_BF) before the first step, zeros if None. reverse
  runs from the last step to the first: padded on the right, each sentence then starts at its own last word.

  Returns (h_BTF in the dtype of x, the state after the last step in float32). Raises ValueError for an
  argument whose shape or dtype does not fit.

  Cost: see the module.
  """
  return _scan(_of_previous(lstm_cell), (4,), 2, x_BTD, input_DA, recurrent_FA, bias_A, mask_BT, state, reverse)


def _product(a, b):
  return jnp.matmul(a.astype(b.dtype), b, preferred_element_type=jnp.float32)


def _scan(cell, blocks, num_states, x_BTD, input_DA, recurrent_FA, bias_A, mask_BT, state, reverse):
  """blocks: how many F columns of recurrent_FA each of the cell's products takes."""
  sizes = shapes.check(
    x_BTD=x_BTD, recurrent_FA=recurrent_FA, input_DA=input_DA, bias_A=bias_A, mask_BT=mask_BT
  )
  shapes.check_mask(mask_BT=mask_BT)
  B, F = sizes["B"], sizes["F"]
  if sizes["A"] != sum(blocks) * F:
    raise ValueError(f"recurrent_FA has shape {recurrent_FA.shape}, wanted FA = {(F, sum(blocks) * F)}")
  if state is None:
    state = (jnp.zeros((B, F), jnp.float32),) * num_states
  if len(state) != num_states or any(part.shape != (B, F) for part in state):
    got = [part.shape for part in state]
    raise ValueError(f"state has shapes {got}, wanted {num_states} of BF = {(B, F)}")

  projected_BTA = _product(x_BTD, input_DA) + bias_A.astype(jnp.float32)[None, None]

  real_TB1 = None if mask_BT is None else mask_BT.T[:, :, None]
  state = tuple(part.astype(jnp.float32) for part in state)
  h_TBF, state = _over_time(cell, blocks, reverse, projected_BTA.swapaxes(0, 1), real_TB1, state, recurrent_FA)
  return h_TBF.swapaxes(0, 1).astype(x_BTD.dtype), state


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _over_time(cell, blocks, reverse, projected_TBA, real_TB1, state, recurrent_FA):
  """(h_TBF, the state after the last step)."""
  return _steps(cell, reverse, projected_TBA, real_TB1, state, recurrent_FA)[0]


def _steps(cell, reverse, projected_TBA, real_TB1, state, recurrent_FA):
  """((h_TBF, state), what recurrent_FA was multiplied by at every step, TBF for each block)."""

  def step(state, inputs):
    projected_BA, real_B1 = inputs
    new, factors = cell(projected_BA, state, recurrent_FA)
    if real_B1 is None:
      return new, (new[0], factors)
    state = tuple(jnp.where(real_B1, a, b) for a, b in zip(new, state, strict=True))
    return state, (jnp.where(real_B1, new[0], 0.0), factors)

  state, (h_TBF, factors) = jax.lax.scan(step, state, (projected_TBA, real_TB1), reverse=reverse)
  return (h_TBF, state), factors


def _forward(cell, blocks, reverse, projected_TBA, real_TB1, state, recurrent_FA):
  def run(projected_TBA, state):
    return _steps(cell, reverse, projected_TBA, real_TB1, state, recurrent_FA)

  out, pull, factors = jax.vjp(run, projected_TBA, state, has_aux=True)
  return out, (pull, factors, recurrent_FA)


def _backward(cell, blocks, reverse, residuals, cotangents):
  pull, factors, recurrent_FA = residuals
  gradient_TBA, state = pull(cotangents)
  # What is added to a projection gets the projection's gradient, and so does each product with recurrent_FA.
  F, starts = len(recurrent_FA), [sum(blocks[:i]) for i in range(1, len(blocks))]
  parts = jnp.split(gradient_TBA.astype(recurrent_FA.dtype), [F * start for start in starts], axis=2)
  product = functools.partial(jnp.einsum, "TBF,TBA->FA", preferred_element_type=jnp.float32)
  gradient_FA = [product(x.astype(recurrent_FA.dtype), part) for x, part in zip(factors, parts, strict=True)]
  return gradient_TBA, None, state, jnp.concatenate(gradient_FA, axis=1).astype(recurrent_FA.dtype)


_over_time.defvjp(_forward, _backward)
