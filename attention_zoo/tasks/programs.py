"""What a trained model computes, as pure functions of arrays: they can be exported, and run without this package.

A program takes the parameters first and then arrays, and returns arrays. `Programs.start` and `Programs.step` split a
`protocols.Decoding`, whose step is a closure, in two: whatever it closes over beside the parameters (an encoded source)
becomes `fixed`.

Letters: B rows, S source positions, T target positions, V vocabulary, Z room for positions.
"""

import jax
import jax.numpy as jnp
from jax.extend import core

from attention_zoo.decoding.score import sequence_scores
from attention_zoo.errors import UserError
from attention_zoo.tasks.teacher_forcing import teacher_forcing


class Programs:
  """score, start: functions of (params, *arrays); score_shapes, start_shapes: {name: dimensions} of those int32 arrays.

  score -> logprobs_BT of the targets, 0 where padding stands. start -> (fixed, cache), lists of arrays. step, once
  start was traced: (params, fixed, cache, tokens_B, t) -> (logits_BV, cache), the tokens of position t in, the logits
  of what follows out; t counts from 0. sizes: of the dimensions where they have to be fixed; limits: the largest that
  the model can take.
  """

  def __init__(self, score, score_shapes, open, start_shapes, sizes, limits):
    self.score, self._open = score, open
    self.score_shapes, self.start_shapes, self.sizes, self.limits = score_shapes, start_shapes, sizes, limits
    self._step = None

  def start(self, params, *arrays):
    decoding = self._open(params, *arrays)
    cache, tree = jax.tree.flatten(decoding.cache)

    def step(tokens_B, t, cache):
      logits_BJTV, cache = decoding.step(tokens_B[:, None, None], t, tree.unflatten(cache))
      return logits_BJTV[:, 0, 0], jax.tree.leaves(cache)

    traced = jax.make_jaxpr(step)(jnp.zeros(arrays[0].shape[0], jnp.int32), jnp.int32(0), cache)
    places = {id(leaf): ("params", i) for i, leaf in enumerate(jax.tree.leaves(params))}
    fixed, consts = [], []
    for value in traced.consts:
      if id(value) in places:
        consts.append(places[id(value)])
      elif isinstance(value, jax.core.Tracer):
        consts.append(("fixed", len(fixed)))
        fixed.append(value)
      else:
        consts.append(("constant", value))
    self._step = traced.jaxpr, consts
    return fixed, cache

  def step(self, params, fixed, cache, tokens_B, t):
    jaxpr, consts = self._step
    given = {"params": jax.tree.leaves(params), "fixed": fixed}
    values = [given[kind][at] if kind in given else at for kind, at in consts]
    logits_BV, *cache = core.jaxpr_as_fun(core.ClosedJaxpr(jaxpr, values))(tokens_B, t, *cache)
    return logits_BV, cache


def translation(task) -> Programs:
  """Of an encoder-decoder: `start` reads the source; a target has room for S + config.decode.extra_length tokens."""
  longest, extra = task.longest, task.config.decode.extra_length
  pair = {"source": ("b", "s"), "source_lengths": ("b",), "target": ("b", "t"), "target_lengths": ("b",)}
  room = {} if longest is None else {"s": longest - extra, "t": longest}
  if room and room["s"] < 1:
    raise UserError(f"config.model.max_length = {longest} leaves no source room beside config.decode.extra_length")
  size = min([task.config.data.max_length, *room.values()])

  def score(params, *pair):
    batch = teacher_forcing(*pair)
    logits_BTV = task.logits(params, batch)
    return sequence_scores(logits_BTV, batch["targets"], batch["target_segments"], alpha=0.0).logprobs_BT

  def open(params, source_BS, lengths_B):
    batch = teacher_forcing(source_BS, lengths_B, source_BS, lengths_B)
    source = {name: batch[name] for name in ("source", "source_segments", "source_positions")}
    return _roomy(task.decoding(params, source, num_beams=1), source_BS.shape[1] + extra)

  start = {name: pair[name] for name in ("source", "source_lengths")}
  return Programs(score, pair, open, start, {"s": size, "t": size}, room)


def language(task) -> Programs:
  """Of a language model: `start` looks at nothing but the shape of its argument, rows and room for positions."""
  limits = {} if task.longest is None else {"t": task.longest, "z": task.longest}
  size = min([task.config.data.row_length, *limits.values()])

  def score(params, targets_BT, lengths_B):
    forced = teacher_forcing(targets_BT, lengths_B, targets_BT, lengths_B)
    segments_BT = forced["target_segments"]
    batch = {"inputs": forced["inputs"], "segments": segments_BT, "positions": forced["target_positions"]}
    logits_BTV = task.model.apply({"params": params}, batch)
    return sequence_scores(logits_BTV, targets_BT, segments_BT, alpha=0.0).logprobs_BT

  def open(params, room_BZ):
    return _roomy(task.decoding(params, {"inputs": room_BZ[:, :1]}, num_beams=1), room_BZ.shape[1])

  shapes = {"targets": ("b", "t"), "target_lengths": ("b",)}
  return Programs(score, shapes, open, {"room": ("b", "z")}, {"t": size, "z": size}, limits)


def _roomy(decoding, room):
  return decoding._replace(cache=decoding.grow(decoding.cache, room)) if decoding.grow else decoding
