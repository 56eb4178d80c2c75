"""What a head of attention does, in four numbers and a few words, out of its weights.

Letters: L layers, N heads, T queries, S keys.
"""

import dataclasses

import numpy as np

_EVEN, _MOST = 0.9, 0.5


@dataclasses.dataclass(frozen=True)
class Heads:
  """Figures of all heads, each [L, N].

  entropy: of a row of weights, in nats, the mean over rows: 0 where all weight lies on one key, log S where it is even.
  distance: how many tokens away what is attended to stands, the mean. Between two texts a query stands where it would
  if both were stretched to one length. near: the part of the weight within one token of there ("diagonal mass").
  key: the number of the key that gets most over all queries; share: its part of all weight.
  words: what the head mostly looks at, "" where it is no one thing.
  """

  entropy: np.ndarray
  distance: np.ndarray
  near: np.ndarray
  key: np.ndarray
  share: np.ndarray
  words: list[list[str]]


def summarize(weights_LNTS, keys, *, lag=None) -> Heads:
  """The figures of the heads.

  keys: the tokens looked at. lag: None where queries and keys are two texts. Within one text, how many tokens a query
  is ahead of the key of its number: 0, or 1 where query t is the token that is to come and key t the one before it.
  """
  layers = [_of_layer(weights_NTS, keys, lag) for weights_NTS in weights_LNTS]  # one at a time: they may be gigabytes
  return Heads(*map(np.stack, list(zip(*layers, strict=True))[:-1]), [words for *_, words in layers])


def _of_layer(weights_NTS, keys, lag):
  """The fields of `Heads` for the heads of one layer, each [N]."""
  N, T, S = weights_NTS.shape
  weights = np.maximum(np.asarray(weights_NTS, np.float64), 0)
  weights /= np.maximum(weights.sum(-1, keepdims=True), 1e-30)
  entropy_NT = -(weights * np.log(np.maximum(weights, 1e-30))).sum(-1)
  if lag is None:
    here_T = np.arange(T) * ((S - 1) / max(T - 1, 1))
  else:
    here_T = np.arange(T) + float(lag)
  offsets_TS = np.arange(S) - here_T[:, None]
  causal = lag is not None and T == S and not np.triu(weights, 1).any()
  seen_T = np.arange(1, T + 1) if causal else np.full(T, S)
  distance = (weights * np.abs(offsets_TS)).sum(-1).mean(-1)
  near = (weights * (np.abs(offsets_TS) <= 1)).sum(-1).mean(-1)
  columns = weights.mean(-2)
  key, share, entropy = columns.argmax(-1), columns.max(-1), entropy_NT.mean(-1)
  even = entropy / max(np.log(seen_T).mean(), 1e-9)

  def words(n):
    if lag is not None:
      for offset, name in ((0, "the token itself"), (-1, "the token before"), (1, "the token behind"),
                           (-2, "two tokens before")):  # fmt: skip
        if (on := offsets_TS == offset).any() and (weights[n] * on).sum() > _MOST * on.any(-1).sum():
          return name
    if share[n] > _MOST:
      return f"“{keys[key[n]].replace('▁', '')}”"
    if lag is None and near[n] > _MOST:
      return "the same place"
    if even[n] > _EVEN and S > 1:
      return "everything alike"
    return ""

  return entropy, distance, near, key, share, [words(n) for n in range(N)]
