"""Learning pieces of words by joining the pair of neighbours that is most frequent, again and again (Sennrich et al.
2016, algorithm 1): for `byte_bpe` and `wordpiece`."""

import heapq
from collections import Counter, defaultdict
from collections.abc import Mapping


def learn(words: Mapping[tuple[str, ...], int], number: int, join=str.__add__) -> list[tuple[str, str]]:
  """At most `number` pairs in the order in which they were joined. words: their parts -> how often they occur.

  join: (left, right) -> what both are as one. Of pairs that are equally frequent, the smallest as tuples of strings is
  joined first. Pairs that occur once are not joined. Cost: each merge touches only the words that it changes.
  """
  parts, counts = [list(word) for word in words], [*words.values()]
  frequency, places = Counter(), defaultdict(set)
  for i, word in enumerate(parts):
    for pair in zip(word, word[1:], strict=False):
      frequency[pair] += counts[i]
      places[pair].add(i)
  queue = [(-count, pair) for pair, count in frequency.items()]
  heapq.heapify(queue)
  found = []
  while queue and len(found) < number:
    count, pair = heapq.heappop(queue)
    if -count != frequency[pair]:
      continue  # it has become less frequent since; it stands in the queue with its new count
    if -count < 2:
      break
    found.append(pair)
    joined, changed = join(*pair), set()
    for i in sorted(places.pop(pair)):
      word = parts[i]
      for old in zip(word, word[1:], strict=False):
        frequency[old] -= counts[i]
        places[old].discard(i)
        changed.add(old)
      parts[i] = word = _joined(word, pair, joined)
      for new in zip(word, word[1:], strict=False):
        frequency[new] += counts[i]
        places[new].add(i)
        changed.add(new)
    for other in changed:
      if frequency[other] > 0:
        heapq.heappush(queue, (-frequency[other], other))
  return found


def _joined(word, pair, joined) -> list[str]:
  found, i = [], 0
  while i < len(word):
    here = i + 1 < len(word) and (word[i], word[i + 1]) == pair
    found.append(joined if here else word[i])
    i += 1 + here
  return found
