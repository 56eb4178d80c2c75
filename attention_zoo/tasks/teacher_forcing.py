"""Teacher forcing of sentence pairs, and what is read out of that pass: every attention weight, and alignments.

Letters: B pairs, T target positions, S source positions, N heads.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from attention_zoo.data.tokenizer import BOS
from attention_zoo.decoding.batching import padded_length
from attention_zoo.decoding.score import sequence_scores
from attention_zoo.tasks.attended import Attended, View


@dataclasses.dataclass(frozen=True, repr=False)
class Attention(Attended):
  """Weights [layers, heads, queries, keys] and their tokens, from the computation that gave `logprob`.

  encoder: source over source; decoder: target input over target input; cross: target input over source. Row t of
  the decoder's weights made the prediction of target token t, so that row 0 (fed with <s>) belongs to `target[0]`.
  encoder, decoder: None where the model has no self-attention there, or one that never has all its weights in one
  array (local ones). cross: None where the model has no attention to the source.
  """

  source: list[str]
  target: list[str]
  encoder: np.ndarray | None
  decoder: np.ndarray | None
  cross: np.ndarray | None
  logprob: float

  def kinds(self):
    source, target = self.source, self.target
    return {
      "cross": View(
        "Cross-attention", "Each token of the translation, while it is written, looks at the source.",
        "The translation, as it is written", "looks at the source", target, source, self.cross,
      ),
      "encoder": View(
        "Encoder", "Each token of the source looks at all of the source, itself among it.",
        "The source", "looks at the source", source, source, self.encoder, 0,
      ),
      "decoder": View(
        "Decoder", "Each token of the translation, while it is written, looks at those written before it.",
        "The translation, as it is written", "looks at what stands there already", target, ["<s>", *target[:-1]],
        self.decoder, 1,
      ),
    }  # fmt: skip


def read_attention(task, params, source_ids, target_ids, read=None) -> Attention:
  """All weights of one pair, out of the forward pass that gives its log-probability. Ids end with EOS.

  read: `forced_weights` of this task, compiled.
  """
  S, T = len(source_ids), len(target_ids)
  length = padded_length(max(S, T))  # so that few lengths are compiled
  if task.longest is not None:
    length = max(S, T, min(length, task.longest))
  pair = []
  for ids in (source_ids, target_ids):
    pair += [np.pad(np.array([ids], np.int32), ((0, 0), (0, length - len(ids)))), np.array([len(ids)], np.int32)]
  logprob, found = jax.device_get((read or functools.partial(forced_weights, task))(params, *pair))
  sizes = {"encoder": (S, S), "decoder": (T, T), "cross": (T, S)}
  weights = {
    kind: np.stack([np.asarray(layer[0, :, : sizes[kind][0], : sizes[kind][1]], np.float32) for layer in layers])
    if layers else None
    for kind, layers in found.items()
  }  # fmt: skip
  pieces = task.tokenizer.pieces
  return Attention(pieces(source_ids), pieces(target_ids), **weights, logprob=float(logprob))


def forced_weights(task, params, source_BS, source_lengths_B, target_BT, target_lengths_B):
  """(log-probability of the first target, `sown_weights`) out of one pass."""
  batch = teacher_forcing(source_BS, source_lengths_B, target_BT, target_lengths_B)
  logits_BTV, state = task.model.apply({"params": params}, batch, mutable=["intermediates"])
  return sequence_scores(logits_BTV, target_BT, batch["target_segments"], alpha=0.0).scores_B[0], sown_weights(state)


def sown_weights(state) -> dict:
  """{"encoder", "decoder", "cross": [weights BNTS of each layer, from the first]}, out of what a model has sown."""
  found = {"encoder": {}, "decoder": {}, "cross": {}}
  for path, leaf in jax.tree_util.tree_leaves_with_path(state.get("intermediates", {})):
    names = [str(key.key) for key in path if isinstance(key, jax.tree_util.DictKey)]
    if names[-1] == "weights":
      kind = "cross" if "cross_attention" in names else names[0]
      layer = tuple(int(name.rpartition("_")[2]) for name in names if name.rpartition("_")[2].isdecimal())
      found[kind][layer, tuple(names)] = leaf
  return {kind: [layers[key] for key in sorted(layers)] for kind, layers in found.items()}


def attends(task) -> bool:
  """Whether the model has an attention between target and source whose weights it shows."""
  pair = [jax.ShapeDtypeStruct((1, 2), jnp.int32), jax.ShapeDtypeStruct((1,), jnp.int32)] * 2
  batch = jax.eval_shape(teacher_forcing, *pair)
  params = jax.eval_shape(task.init, jax.random.key(0)).params
  apply = lambda params, batch: task.model.apply({"params": params}, batch, mutable=["intermediates"])[1]
  return bool(sown_weights(jax.eval_shape(apply, params, batch))["cross"])


def forced_scores(task, params, source_BS, source_lengths_B, target_BT, target_lengths_B, alpha):
  """(log-probability over length penalty, log-probability) of each target, both B."""
  batch = teacher_forcing(source_BS, source_lengths_B, target_BT, target_lengths_B)
  logits_BTV = task.logits(params, batch)
  scores = sequence_scores(logits_BTV, target_BT, batch["target_segments"], alpha=alpha)
  return scores.scores_B, scores.logprobs_BT.sum(-1)


def alignment(task, params, source_BS, source_lengths_B, target_BT, target_lengths_B, *, words=False):
  """For each target token the source position that its prediction looked at most; int32, BT. Padding gets anything.

  words: the end of the source is none of the positions. Heads: see `soft_alignment`.
  """
  weights_BTS = soft_alignment(task, params, source_BS, source_lengths_B, target_BT, target_lengths_B)
  if words:
    inside_BS = jnp.arange(source_BS.shape[1])[None] < source_lengths_B[:, None] - 1
    weights_BTS = jnp.where(inside_BS[:, None], weights_BTS, -1.0)
  return jnp.argmax(weights_BTS, axis=-1).astype(jnp.int32)


def soft_alignment(task, params, source_BS, source_lengths_B, target_BT, target_lengths_B):
  """How much the prediction of each target token looked at each source position; float32, BTS. Padding gets anything.

  The weights are the mean over the heads of the last decoder layer but one (the only one if there is one),
  which Garg et al. 2019 (arXiv:1909.02074) found to align best. For models that attend (`attends`).
  """
  batch = teacher_forcing(source_BS, source_lengths_B, target_BT, target_lengths_B)
  _, state = task.model.apply({"params": params}, batch, mutable=["intermediates"])
  layers = sown_weights(state)["cross"]
  weights_BNTS = layers[max(len(layers) - 2, 0)]
  return weights_BNTS.astype(jnp.float32).mean(1)


def teacher_forcing(source_BS, source_lengths_B, target_BT, target_lengths_B) -> dict:
  """The batch of `data/batches.py` for one pair a row; works on NumPy and on traced arrays alike."""

  def side(ids, lengths_B):
    positions = jnp.broadcast_to(jnp.arange(ids.shape[1], dtype=jnp.int32), ids.shape)
    return positions, (positions < lengths_B[:, None]).astype(jnp.int32)

  source_positions, source_segments = side(source_BS, source_lengths_B)
  target_positions, target_segments = side(target_BT, target_lengths_B)
  return {
    "source": jnp.asarray(source_BS),
    "source_segments": source_segments,
    "source_positions": source_positions,
    "inputs": jnp.pad(jnp.asarray(target_BT)[:, :-1], ((0, 0), (1, 0)), constant_values=BOS),
    "targets": jnp.asarray(target_BT),
    "target_segments": target_segments,
    "target_positions": target_positions,
  }
