"""Sampling from a model, one token after the other: temperature, top-k, top-p, min-p, repetition penalty.

A row's tokens are a function of its prompt, its seed and the options: token t is drawn with `fold_in(key(seed), t)`, so
that neither the rows beside it nor the pieces in which `advance` is called change it.

Letters: B rows, V vocabulary, P positions of a prompt that may be padded, L positions that there is room for, N parts
of a prompt.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from attention_zoo.protocols import Decoding

# Positions of a prompt that are read in one step: its attention weights are an array of these by all there is room for.
_MOST = 1024


class Options(NamedTuple):
  """How a distribution is changed before a token is drawn, in this order. Numbers or traced scalars.

  repetition_penalty: the logits of tokens that stand in the row already are divided by it where they are positive and
    multiplied where they are negative (Keskar et al. 2019); 1: none.
  temperature: logits are divided by it; 0: always the most probable token, the lowest id of several.
  top_k: only the k most probable tokens (Fan et al. 2018); 0: all.
  top_p: only the most probable tokens that together have a probability of at least p, which includes the token that
    crosses p (Holtzman et al. 2020); 1: all.
  min_p: only tokens with at least this part of the largest probability (Nguyen et al. 2024); 0: all.
  """

  temperature: float = 1.0
  top_k: int = 0
  top_p: float = 1.0
  min_p: float = 0.0
  repetition_penalty: float = 1.0


class State(NamedTuple):
  """Rows that are being sampled. tokens_BL: prompt and what was drawn; positions from t on are `pad`.

  logits_BV: of position t. logprobs_BL: of each drawn token under the model itself, whatever the options; 0 elsewhere.
  seen_BV: tokens that stand in the row. done_B: the row has ended; lengths_B: its tokens, the ending one included.
  """

  t: jax.Array
  tokens_BL: jax.Array
  logprobs_BL: jax.Array
  lengths_B: jax.Array
  done_B: jax.Array
  logits_BV: jax.Array
  seen_BV: jax.Array
  keys_B: jax.Array
  cache: object


def begin(decoding: Decoding, prompt_BP, length, seeds_B, *, room: int, pad: int) -> State:
  """Feeds the prompts, in steps of at most _MOST positions. To be called under `jax.jit`.

  prompt_BP: token ids, at least one; only the first `length` (a traced scalar) count, the same for all rows. seeds_B:
  int of each row. room: L, positions of prompt and continuation together. Raises ValueError where they do not fit.
  """
  B, P = prompt_BP.shape
  if not 1 <= P <= room:
    raise ValueError(f"a prompt of {P} positions does not fit into {room}, or is empty")
  if decoding.max_length is not None and room > decoding.max_length:
    raise ValueError(f"{room} positions are more than the model's {decoding.max_length}")
  cache = decoding.grow(decoding.cache, room) if decoding.grow else decoding.cache
  logits_BV, cache = _read(decoding.step, prompt_BP, length, cache)
  counts_BP = jnp.broadcast_to(jnp.arange(P)[None] < length, (B, P))
  tokens_BP = jnp.where(counts_BP, prompt_BP, pad)
  seen_BV = jax.vmap(lambda seen_V, tokens_P, counts_P: seen_V.at[tokens_P].max(counts_P))(
    jnp.zeros(logits_BV.shape, bool), tokens_BP, counts_BP
  )
  return State(
    t=jnp.asarray(length, jnp.int32),
    tokens_BL=jnp.pad(tokens_BP, ((0, 0), (0, room - P)), constant_values=pad),
    logprobs_BL=jnp.zeros((B, room), jnp.float32),
    lengths_B=jnp.full(B, length, jnp.int32),
    done_B=jnp.zeros(B, bool),
    logits_BV=logits_BV.astype(jnp.float32),
    seen_BV=seen_BV,
    keys_B=jax.vmap(jax.random.key)(seeds_B),
    cache=cache,
  )


def _read(step, prompt_BP, length, cache):
  """(logits_BV behind `length` tokens of the prompt, the cache). Positions behind them are fed too, and written anew
  later."""
  parts, at = [], 0
  whole = prompt_BP.shape[1] // _MOST if prompt_BP.shape[1] > _MOST else 0

  def feed(cache, part):
    start, tokens_BP = part
    logits_B1PV, cache = step(tokens_BP[:, None], start, cache)
    last = jnp.clip(length - 1 - start, 0, tokens_BP.shape[1] - 1)
    return cache, lax.dynamic_index_in_dim(logits_B1PV[:, 0], last, 1, keepdims=False)

  if whole:
    at = whole * _MOST
    tokens_NBP = jnp.moveaxis(prompt_BP[:, :at].reshape(len(prompt_BP), whole, _MOST), 1, 0)
    cache, logits_NBV = lax.scan(feed, cache, (jnp.arange(0, at, _MOST, dtype=jnp.int32), tokens_NBP))
    parts = [logits_NBV]
  if at < prompt_BP.shape[1]:
    cache, logits_BV = feed(cache, (jnp.int32(at), prompt_BP[:, at:]))
    parts.append(logits_BV[None])
  return lax.dynamic_index_in_dim(jnp.concatenate(parts), (length - 1) // _MOST, 0, keepdims=False), cache


def advance(step, state: State, until, options: Options, *, eos: int | None) -> State:
  """Draws tokens until position `until` (a traced scalar; at most L), or until all rows have ended with `eos`.

  step: the Decoding's. To be called under `jax.jit`.
  """
  B, L = state.tokens_BL.shape

  def goes_on(state):
    return (state.t < jnp.minimum(until, L)) & ~jnp.all(state.done_B)

  def draw(state):
    keys_B = jax.vmap(jax.random.fold_in, (0, None))(state.keys_B, state.t)
    chosen_B = choose(state.logits_BV, keys_B, options, state.seen_BV)
    logprob_B = _log_softmax_at(state.logits_BV, chosen_B)
    live_B = ~state.done_B

    def write(x_BL, new_B):
      old_B = lax.dynamic_index_in_dim(x_BL, state.t, 1, keepdims=False)
      return lax.dynamic_update_slice_in_dim(x_BL, jnp.where(live_B, new_B, old_B)[:, None], state.t, 1)

    logits_B11V, cache = step(chosen_B[:, None, None], state.t, state.cache)
    return State(
      t=state.t + 1,
      tokens_BL=write(state.tokens_BL, chosen_B),
      logprobs_BL=write(state.logprobs_BL, logprob_B),
      lengths_B=state.lengths_B + live_B,
      done_B=state.done_B | (False if eos is None else chosen_B == eos),
      logits_BV=logits_B11V[:, 0, 0].astype(jnp.float32),
      seen_BV=jax.vmap(lambda seen_V, token: seen_V.at[token].set(True))(state.seen_BV, chosen_B),
      keys_B=state.keys_B,
      cache=cache,
    )

  return lax.while_loop(goes_on, draw, state)


def choose(logits_BV, keys_B, options: Options, seen_BV=None):
  """A token of each row, drawn from the changed distribution. seen_BV: only the repetition penalty asks for it."""
  changed_BV = changed(logits_BV, options, seen_BV)
  drawn_B = jax.vmap(jax.random.categorical)(keys_B, changed_BV)
  return jnp.where(jnp.asarray(options.temperature) == 0, jnp.argmax(changed_BV, -1), drawn_B)


def changed(logits_BV, options: Options, seen_BV=None):
  """The logits (float32) of the distribution that `options` ask for: -inf for tokens that are left out."""
  temperature, top_k, top_p, min_p, penalty = (jnp.asarray(option) for option in options)
  logits_BV = logits_BV.astype(jnp.float32)
  if seen_BV is not None:
    penalised_BV = jnp.where(logits_BV > 0, logits_BV / penalty, logits_BV * penalty)
    logits_BV = jnp.where(seen_BV, penalised_BV, logits_BV)
  logits_BV = logits_BV / jnp.where(temperature == 0, 1.0, temperature)

  def cut(logits_BV):
    # Ranks by probability, the lower id first of equal ones: what is kept is always the beginning of this order.
    V = logits_BV.shape[-1]
    order_BV = jnp.argsort(-logits_BV, axis=-1, stable=True)
    sorted_BV = jnp.take_along_axis(logits_BV, order_BV, axis=-1)
    rank_V = jnp.arange(V)[None]
    kept_BV = (rank_V < jnp.where(top_k == 0, V, top_k)) & (sorted_BV > -jnp.inf)
    probabilities_BV = jax.nn.softmax(jnp.where(kept_BV, sorted_BV, -jnp.inf), axis=-1)
    before_BV = jnp.cumsum(probabilities_BV, axis=-1) - probabilities_BV
    kept_BV &= (before_BV < top_p) | (top_p >= 1)  # the sum of all is 1 but for rounding
    kept_BV &= probabilities_BV >= min_p * probabilities_BV[:, :1]
    count_B1 = jnp.maximum(jnp.sum(kept_BV, axis=-1, keepdims=True), 1)
    ranks_BV = jnp.argsort(order_BV, axis=-1)
    return jnp.where(ranks_BV < count_B1, logits_BV, -jnp.inf)

  # Sorting the vocabulary costs more than a small model: only where something is to be cut.
  cuts = (top_k > 0) | (top_p < 1) | (min_p > 0)
  return lax.cond(cuts, cut, lambda logits_BV: logits_BV, logits_BV)


def _log_softmax_at(logits_BV, tokens_B):
  chosen_B = jnp.take_along_axis(logits_BV, tokens_B[:, None], axis=-1)[:, 0]
  return jnp.minimum(chosen_B - jax.nn.logsumexp(logits_BV, axis=-1), 0.0)
