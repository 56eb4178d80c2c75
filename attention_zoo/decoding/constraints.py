"""What the hypotheses of a beam search must hold: a prefix that they begin with, phrases that stand somewhere in them.

Phrases are forced by dynamic beam allocation (Post and Vilar 2018, arXiv:1804.06609), in the form for arrays of Hu
et al. 2019 (aclanthology.org/N19-1090). A hypothesis is in the bank of its progress: the tokens of the phrases that it
holds, and of the one among the others that it has got furthest with. The candidates of a step are those of the plain
search and, of each hypothesis, its own best token and the next token of each phrase that is still missing. Only
hypotheses that hold all phrases may end. The places of the beam go round the banks, the fullest first: the best of
each, the second best of each, ..., so that the beam has as many hypotheses of each progress as it can.

The best hypothesis of the fullest bank is always kept, and one of its candidates is a token further: whatever the beam
size, after as many steps as the phrases have tokens some hypothesis holds them all, and it ends at the limit at the
latest. So a sentence has a result that holds its phrases wherever its limit exceeds their tokens (and its prefix) and
no token of them is forbidden. A beam narrower than the number of tokens finds poor ones: it has no place for who waits.

Letters: B sentences, J beams, V vocabulary, T tokens of a prefix, C phrases, W tokens of a phrase, Z how many of them
the end of a hypothesis matches (0 to W), P candidates of one step, E those of one hypothesis.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from attention_zoo.decoding.candidates import log_probabilities, pick

NONE = -1  # fills up prefixes and phrases that are shorter than others


class Constraints(NamedTuple):
  """Ids, filled up with NONE; None: no sentence has a prefix, or a phrase.

  prefix_BT: the first tokens of every hypothesis of the sentence. Their log-probabilities count.
  phrases_BCW: each must stand in every hypothesis that ends, its tokens side by side. Phrases may overlap in it.
  """

  prefix_BT: jax.Array | None = None
  phrases_BCW: jax.Array | None = None


UNCONSTRAINED = Constraints()


class Guide:
  """Constraints as the steps of a search ask for them."""

  def __init__(self, constraints: Constraints, beam_size: int, eos: int):
    self.prefix_BT, self.phrases_BCW = constraints
    self.beam_size, self.eos = beam_size, eos
    if self.phrases_BCW is not None:
      self.lengths_BC = jnp.sum(self.phrases_BCW != NONE, axis=-1)
      self.borders_BCZW = _borders(self.phrases_BCW)

  def start(self):
    """matched_BJC: the tokens at the beginning of each phrase that the end of each hypothesis is;
    all, once it holds it."""
    if self.phrases_BCW is None:
      return None
    B, C = self.lengths_BC.shape
    return jnp.zeros((B, self.beam_size, C), jnp.int32)

  @property
  def has_phrases_B(self):
    """Whether a sentence must hold phrases; [1] where none does."""
    return jnp.zeros(1, bool) if self.phrases_BCW is None else jnp.any(self.lengths_BC > 0, axis=-1)

  def candidates(self, found, logits_BJV, alive_BJ, matched_BJC, t, limits_B):
    """(logprobs_BP, parents_BP, tokens_BP, matched_BPC), where forbidden candidates have -inf.

    found: the first three of the plain search, best first.
    """
    if self.phrases_BCW is not None:
      found = self._with_phrases(found, logits_BJV, alive_BJ, matched_BJC, t + 1 >= limits_B)
    if self.prefix_BT is not None:
      found = self._within_prefix(found, logits_BJV, alive_BJ, t)
    if self.phrases_BCW is None:
      return *found, None
    logprobs_BP, parents_BP, tokens_BP = found
    matched_BPC = self._advance(pick(matched_BJC, parents_BP), tokens_BP)
    too_soon_BP = (tokens_BP == self.eos) & ~self._whole(matched_BPC)
    return jnp.where(too_soon_BP, -jnp.inf, logprobs_BP), parents_BP, tokens_BP, matched_BPC

  def allocate(self, logprobs_BP, matched_BPC):
    """(alive_BJ best first, picks_BJ): which candidates go on; -inf forbids one."""
    if self.phrases_BCW is None:
      return lax.top_k(logprobs_BP, self.beam_size)
    progress_BP = self._progress(matched_BPC)
    same_BPP = progress_BP[:, :, None] == progress_BP[:, None]
    better_BPP = logprobs_BP[:, None] > logprobs_BP[:, :, None]
    better_BPP |= (logprobs_BP[:, None] == logprobs_BP[:, :, None]) & _earlier(logprobs_BP)
    rank_BP = jnp.sum(same_BPP & better_BPP, axis=-1)  # in its bank
    tokens_B1 = jnp.sum(self.lengths_BC, axis=-1, keepdims=True)
    turn_BP = rank_BP * (tokens_B1 + 1) + tokens_B1 - progress_BP
    turn_BP = jnp.where(logprobs_BP > -jnp.inf, turn_BP, jnp.iinfo(jnp.int32).max)
    _, picks_BJ = lax.top_k(-turn_BP, self.beam_size)
    alive_BJ, order_BJ = lax.top_k(pick(logprobs_BP, picks_BJ), self.beam_size)
    return alive_BJ, pick(picks_BJ, order_BJ)

  def _whole(self, matched_BPC):
    return jnp.all(matched_BPC == self.lengths_BC[:, None], axis=-1)

  def _progress(self, matched_BPC):
    """With one phrase under way, not all: a step further with it is then always progress, whatever it breaks off."""
    held_BPC = matched_BPC == self.lengths_BC[:, None]
    return jnp.sum(jnp.where(held_BPC, matched_BPC, 0), -1) + jnp.max(jnp.where(held_BPC, 0, matched_BPC), -1)

  def _with_phrases(self, found, logits_BJV, alive_BJ, matched_BJC, last_B):
    """Adds each hypothesis's next tokens of missing phrases, its best token and, at the limit, its end."""
    V = logits_BJV.shape[2]
    next_BCJ1 = jnp.minimum(jnp.swapaxes(matched_BJC, 1, 2), self.phrases_BCW.shape[2] - 1)[..., None]
    next_BCJ = jnp.take_along_axis(self.phrases_BCW[:, :, None], next_BCJ1, axis=3)[..., 0]
    wanted_BJC = jnp.where(matched_BJC < self.lengths_BC[:, None], jnp.swapaxes(next_BCJ, 1, 2), NONE)
    whole_BJ = self._whole(matched_BJC)
    ends_V = jnp.arange(V) == self.eos
    best_BJ = jnp.argmax(jnp.where(ends_V[None, None] & ~whole_BJ[..., None], -jnp.inf, logits_BJV), axis=-1)
    end_BJ = jnp.where(whole_BJ & last_B[:, None], self.eos, NONE)
    more_BJE = jnp.concatenate([wanted_BJC, best_BJ[..., None], end_BJ[..., None]], axis=-1)
    # The others are searched as ever.
    possible_BJE = (more_BJE != NONE) & self.has_phrases_B[:, None, None]
    more_BJE = jnp.maximum(more_BJE, 0)
    logprobs_BJE = jnp.where(possible_BJE, log_probabilities(logits_BJV, alive_BJ, more_BJE), -jnp.inf)
    parents_BJE = jnp.broadcast_to(jnp.arange(self.beam_size)[None, :, None], more_BJE.shape)
    flat = (x.reshape(x.shape[0], -1) for x in (logprobs_BJE, parents_BJE, more_BJE))
    logprobs_BP, parents_BP, tokens_BP = (jnp.concatenate(pair, axis=1) for pair in zip(found, flat, strict=True))
    names_BP = parents_BP * V + tokens_BP
    twin_BPP = (names_BP[:, :, None] == names_BP[:, None]) & (logprobs_BP[:, None] > -jnp.inf) & _earlier(names_BP)
    return jnp.where(jnp.any(twin_BPP, axis=-1), -jnp.inf, logprobs_BP), parents_BP, tokens_BP

  def _within_prefix(self, found, logits_BJV, alive_BJ, t):
    """In the place of all others the next token of the prefix, where one is left:
    the first beam is the only one then."""
    logprobs_BP, parents_BP, tokens_BP = found
    T = self.prefix_BT.shape[1]
    token_B1 = lax.dynamic_slice_in_dim(self.prefix_BT, jnp.minimum(t, T - 1), 1, axis=1)
    forced_B1 = (token_B1 != NONE) & (t < T)
    token_B1 = jnp.maximum(token_B1, 0)
    logprob_B1 = log_probabilities(logits_BJV[:, :1], alive_BJ[:, :1], token_B1[..., None])[..., 0]
    first_P = jnp.arange(logprobs_BP.shape[1]) == 0
    only_BP = jnp.where(first_P[None], logprob_B1, -jnp.inf)
    return (
      jnp.where(forced_B1, only_BP, logprobs_BP),
      jnp.where(forced_B1, 0, parents_BP),
      jnp.where(forced_B1, token_B1, tokens_BP),
    )

  def _advance(self, matched_BPC, tokens_BP):
    """matched_BPC once the tokens were appended:
    the longest beginning of a phrase that ends there (Knuth, Morris, Pratt)."""
    W = self.phrases_BCW.shape[2]
    states_BCP1 = jnp.swapaxes(matched_BPC, 1, 2)[..., None]
    borders_BCPW = jnp.take_along_axis(self.borders_BCZW, states_BCP1, axis=2)
    fits_BCPW = borders_BCPW & (self.phrases_BCW[:, :, None] == tokens_BP[:, None, :, None])
    longest_BCP = jnp.max(jnp.where(fits_BCPW, 1 + jnp.arange(W)[None, None, None], 0), axis=-1)
    held_BPC = matched_BPC == self.lengths_BC[:, None]
    return jnp.where(held_BPC, matched_BPC, jnp.swapaxes(longest_BCP, 1, 2))


def _borders(phrases_BCW):
  """borders_BCZW[.., z, w]: the first w tokens of the phrase are the last w of its first z,
  so that token w may follow."""
  first_BCW = jnp.broadcast_to(jnp.arange(phrases_BCW.shape[2]) == 0, phrases_BCW.shape)

  def longer(border_BCW, token_BC):
    fits_BCW = border_BCW & (phrases_BCW == token_BC[..., None])
    border_BCW = first_BCW | jnp.roll(fits_BCW, 1, axis=-1)
    return border_BCW, border_BCW

  _, rest_ZBCW = lax.scan(longer, first_BCW, jnp.moveaxis(phrases_BCW, -1, 0))
  return jnp.moveaxis(jnp.concatenate([first_BCW[None], rest_ZBCW]), 0, 2)


def _earlier(x_BP):
  """[1, p, q]: whether candidate q stands before candidate p. Comparing all pairs is cheaper than sorting few."""
  places_P = jnp.arange(x_BP.shape[1])
  return (places_P[None] < places_P[:, None])[None]
