"""A trained translation run: translate, score, look at attention, evaluate."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from attention_zoo.data.tokenizer import BOS, EOS, PAD
from attention_zoo.decoding.batching import length_batches
from attention_zoo.decoding.beam import beam_search
from attention_zoo.decoding.score import sequence_scores
from attention_zoo.errors import UserError
from attention_zoo.evaluation.bleu import bleu_report
from attention_zoo.evaluation.perplexity import count_words, perplexity
from attention_zoo.training import sharding
from attention_zoo.training.step import make_evaluate


@dataclasses.dataclass(frozen=True)
class Hypothesis:
  """One translation. score: log-probability over length penalty; logprob: in nats; ids end with EOS if complete."""

  text: str
  score: float
  logprob: float
  ids: list[int]


@dataclasses.dataclass(frozen=True)
class Attention:
  """Weights [layers, heads, queries, keys] and their tokens, from the computation that gave `logprob`.

  encoder: source over source; decoder: target input over target input; cross: target input over source. Row t of
  the decoder's weights made the prediction of target token t, so that row 0 (fed with <s>) belongs to `target[0]`.
  encoder, decoder: None where the config's self-attention never has all its weights in one array (local ones).
  """

  source: list[str]
  target: list[str]
  encoder: np.ndarray | None
  decoder: np.ndarray | None
  cross: np.ndarray
  logprob: float


class Translator:
  """What `attention_zoo.load` returns for a translation run. Work is spread over all devices of this process."""

  def __init__(self, task, params, variables, *, checkpoint, step):
    self.task, self.config, self.checkpoint, self.step = task, task.config, checkpoint, step
    self._mesh = sharding.local_mesh()
    everywhere = NamedSharding(self._mesh, P())
    self.params, self.variables = jax.device_put((params, variables), everywhere)

  # Translating

  def translate(self, sentences, **options) -> list[str]:
    """The best translation of each sentence; an empty one stays empty. Options: see `hypotheses`."""
    return [found[0].text for found in self.hypotheses(sentences, **options)]

  def hypotheses(self, sentences, *, beam_size=None, alpha=None, n_best=1, report=None) -> list[list[Hypothesis]]:
    """The n_best translations of each sentence, best first.

    sentences: a list of strings; one longer than config.data.max_length pieces is cut there.
    beam_size, alpha: the config's when None. report: called with the number of sentences done.
    """
    if isinstance(sentences, str):
      raise TypeError("translate takes a list of sentences: write translate([sentence])")
    decode = self.config.decode
    beam_size = decode.beam_size if beam_size is None else beam_size
    alpha = decode.alpha if alpha is None else alpha
    if not 1 <= n_best <= beam_size:
      raise UserError(f"n_best must lie between 1 and the beam size {beam_size}, got {n_best}")
    found = [[Hypothesis("", 0.0, 0.0, [])] for _ in sentences]
    sources = self.encode(sentences)
    full = [i for i, source in enumerate(sources) if len(source) > 1]
    for indices, length, rows in self._batches([len(sources[i]) for i in full]):
      batch = [sources[full[i]] for i in indices]
      result = self._decode(
        self.params, *self._rows(batch, length, rows), alpha, beam_size=beam_size, n_best=n_best
      )  # fmt: skip
      result = jax.device_get(result)
      if np.isnan(result.scores_BJ).any():
        raise UserError("the model's logits are not finite: the checkpoint is of a run that has diverged, take another")
      for b, i in enumerate(indices):
        found[full[i]] = [self._hypothesis(result, b, j) for j in range(n_best) if result.lengths_BJ[b, j]]
      if report:
        report(len(indices))
    return found

  def too_long(self, sentences) -> list[int]:
    """The indices of sentences that `translate` will cut."""
    limit = self.config.data.max_length - 1
    return [i for i, ids in enumerate(self.task.tokenizer.encode(list(sentences))) if len(ids) > limit]

  def encode(self, sentences) -> list[list[int]]:
    """Source ids with EOS, cut to config.data.max_length. A sentence of nothing but spaces has EOS alone."""
    limit = self.config.data.max_length - 1
    return [ids[:limit] + [EOS] for ids in self.task.tokenizer.encode([s if s.strip() else "" for s in sentences])]

  def _hypothesis(self, result, b, j):
    ids = [int(i) for i in result.tokens_BJT[b, j, : result.lengths_BJ[b, j]]]
    text = self.task.tokenizer.decode([[i for i in ids if i != EOS]])[0]
    return Hypothesis(text, float(result.scores_BJ[b, j]), float(result.logprobs_BJ[b, j]), ids)

  def _batches(self, lengths):
    if not lengths:
      return []
    return length_batches(
      lengths,
      batch_tokens=self.config.decode.batch_tokens,
      row_multiple=self._mesh.size,
      longest=self.task.model_config.max_length,
    )

  def _rows(self, batch, length, rows):
    """(source_BS, lengths_B) over the devices; rows that only fill the batch have length 0."""
    source_BS = np.full((rows, length), PAD, np.int32)
    lengths_B = np.zeros(rows, np.int32)
    for b, ids in enumerate(batch):
      source_BS[b, : len(ids)] = ids
      lengths_B[b] = len(ids)
    return jax.device_put((source_BS, lengths_B), sharding.batch_sharding(self._mesh))

  @functools.cached_property
  def _decode(self):
    return jax.jit(self._beam, static_argnames=("beam_size", "n_best"))

  def _beam(self, params, source_BS, lengths_B, alpha, *, beam_size, n_best):
    B, S = source_BS.shape
    extra = self.config.decode.extra_length
    positions_BS = jnp.broadcast_to(jnp.arange(S, dtype=jnp.int32), (B, S))
    segments_BS = (positions_BS < lengths_B[:, None]).astype(jnp.int32)
    source = {"source": source_BS, "source_segments": segments_BS, "source_positions": positions_BS}
    decoding = self.task.decoding(params, source, num_beams=beam_size)

    def step(tokens_BJ, t, cache):
      logits_BJTV, cache = decoding.step(tokens_BJ[:, :, None], t, cache)
      return logits_BJTV[:, :, 0], cache

    return beam_search(
      step,
      decoding.cache,
      batch_size=B,
      beam_size=beam_size,
      max_lengths_B=jnp.where(lengths_B > 0, lengths_B + extra, 0),
      max_length=S + extra if decoding.max_length is None else min(S + extra, decoding.max_length),
      bos=BOS,
      eos=EOS,
      pad=PAD,
      alpha=alpha,
      n_best=n_best,
      reorder=decoding.reorder,
      grow=decoding.grow,
    )

  # Scoring and looking

  def score(self, sources, targets, *, alpha=None) -> list[Hypothesis]:
    """Log-probability and length-penalised score that the model gives to each target (force-decoding)."""
    if len(sources) != len(targets):
      raise ValueError(f"score needs as many targets as sources, got {len(targets)} and {len(sources)}")
    alpha = self.config.decode.alpha if alpha is None else alpha
    pairs = list(zip(self.encode(sources), self.encode(targets), strict=True))
    scored = [None] * len(pairs)
    lengths = [max(len(source), len(target)) for source, target in pairs]
    for indices, length, rows in self._batches(lengths):
      source = self._rows([pairs[i][0] for i in indices], length, rows)
      target = self._rows([pairs[i][1] for i in indices], length, rows)
      scores_B, logprobs_B = jax.device_get(self._forced(self.params, *source, *target, alpha))
      for b, i in enumerate(indices):
        scored[i] = Hypothesis(targets[i], float(scores_B[b]), float(logprobs_B[b]), pairs[i][1])
    return scored

  @functools.cached_property
  def _forced(self):
    def forced(params, source_BS, source_lengths_B, target_BT, target_lengths_B, alpha):
      batch = teacher_forcing(source_BS, source_lengths_B, target_BT, target_lengths_B)
      logits_BTV = self.task.model.apply({"params": params}, batch)
      scores = sequence_scores(logits_BTV, target_BT, batch["target_segments"], alpha=alpha)
      return scores.scores_B, scores.logprobs_BT.sum(-1)

    return jax.jit(forced)

  def attention(self, source, target=None) -> Attention:
    """Every attention weight of one sentence pair; without a target, of the sentence and its own translation.

    The weights are read out of the very forward pass that gave the returned log-probability.
    """
    source_ids = self.encode([source])[0]
    if target is None:
      target_ids = self.hypotheses([source])[0][0].ids or [EOS]
    else:
      target_ids = self.encode([target])[0]
    lengths = [np.array([len(ids)], np.int32) for ids in (source_ids, target_ids)]
    arrays = [np.array([ids], np.int32) for ids in (source_ids, target_ids)]
    batch = teacher_forcing(arrays[0], lengths[0], arrays[1], lengths[1])
    logits_BTV, state = self.task.model.apply({"params": self.params}, batch, mutable=["intermediates"])
    logprob = sequence_scores(logits_BTV, arrays[1], batch["target_segments"], alpha=0.0).scores_B[0]
    sown = state["intermediates"]

    def stack(side, kind):
      layers = [sown[side][f"layer_{i}"] for i in range(len(sown.get(side, {})))]
      weights = [np.asarray(layer[kind]["weights"][0][0], np.float32) for layer in layers if kind in layer]
      return np.stack(weights) if weights else None

    pieces = self.task.tokenizer.pieces
    return Attention(
      pieces(source_ids),
      pieces(target_ids),
      stack("encoder", "self_attention"),
      stack("decoder", "self_attention"),
      stack("decoder", "cross_attention"),
      float(logprob),
    )

  # Evaluating

  def perplexity(self, split) -> dict:
    """Perplexities of a split: with and without label smoothing, per subword and per word.

    The two per word are left out where sentences are longer than config.data.max_length: what was cut off or skipped
    has words, but no probability.
    """
    found = self._evaluate(self.params, self.variables, split)
    words = count_words(target for _, target in self.task.source.pairs(split))
    tokens = found["weight"]
    found = perplexity(
      nll=found["nll"] * tokens, smoothed_loss=found["loss"] * tokens, tokens=tokens, words=words
    )._asdict()
    whole = not self.task.corpus(split).too_long
    return {name: value for name, value in found.items() if whole or not name.startswith("per_word")}

  @functools.cached_property
  def _evaluate(self):
    return make_evaluate(self.task, self._mesh)

  def dev_loss(self) -> float:
    return self._evaluate(self.params, self.variables, "dev")["loss"]

  def bleu(self, hypotheses, references) -> float:
    return bleu_report(hypotheses, references, tokenized=self.config.data.tokenized)[0].score

  def evaluate(self, split, *, beam_size=None, alpha=None, report=None) -> dict:
    """Perplexities and the three BLEUs of a split, with the translations they were computed from."""
    sources, references = zip(*self.task.source.pairs(split), strict=True)
    perplexities = self.perplexity(split)  # first: what it may have to complain of would cost the translations
    hypotheses = self.translate(sources, beam_size=beam_size, alpha=alpha, report=report)
    return {
      "perplexity": perplexities,
      "bleu": [row._asdict() for row in bleu_report(hypotheses, references, tokenized=self.config.data.tokenized)],
      "sources": list(sources),
      "hypotheses": hypotheses,
      "references": list(references),
    }


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
