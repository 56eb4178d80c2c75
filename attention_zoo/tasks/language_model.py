"""A trained language model: sample, score, perplexity, attention.

Letters: B rows, P positions of a prompt, T positions of a text, N heads.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Iterator

import jax
import numpy as np

from attention_zoo.data.tokenizer import BOS, EOS, PAD, UNK
from attention_zoo.decoding import sampling
from attention_zoo.decoding.batching import length_batches, padded_length
from attention_zoo.decoding.score import sequence_scores
from attention_zoo.errors import UserError
from attention_zoo.evaluation.languages import has_spaces
from attention_zoo.evaluation.perplexity import exp
from attention_zoo.protocols import Evaluation, Score
from attention_zoo.tasks import arguments, programs
from attention_zoo.tasks.attended import Attended, View
from attention_zoo.tasks.rows import check_finite
from attention_zoo.tasks.run import Run
from attention_zoo.training import sharding

# Tokens between two looks at the text: for stop strings, and for whoever watches.
_PIECE = 16
_MAX_SEED = 2**31 - 1


@dataclasses.dataclass(frozen=True)
class Sample:
  """text: what follows the prompt. logprobs: of its tokens (`ids`), in nats, by the model itself whatever the options.

  ended: with the end of the document or a stop string, and not because max_tokens were drawn.
  """

  prompt: str
  text: str
  ids: list[int]
  logprobs: list[float]
  ended: bool


@dataclasses.dataclass(frozen=True)
class TextScore:
  """logprob: of the whole text and its end, in nats; logprobs: of each of its pieces, the last of which is its end."""

  text: str
  logprob: float
  pieces: list[str]
  logprobs: list[float]


@dataclasses.dataclass(frozen=True, repr=False)
class Attention(Attended):
  """weights [layers, heads, queries, keys] (None where no layer has all of them in one array), from the pass that gave
  `logprob`. Row t made the prediction of target token t; row 0 is fed with <s>, and so is key 0."""

  inputs: list[str]
  target: list[str]
  weights: np.ndarray | None
  logprob: float

  def kinds(self):
    note = "Each token, while it is predicted, looks at those before it."
    names = "The text, as it is predicted", "looks at what stands before"
    return {"self": View("Self-attention", note, *names, self.target, self.inputs, self.weights, 1)}


class LanguageModel(Run):
  """What `attention_zoo.load` returns for a language model. Work is spread over all devices of this process."""

  # Sampling

  def sample(
    self,
    prompt: str = "",
    *,
    num_samples: int = 1,
    max_tokens: int | None = None,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    repetition_penalty: float | None = None,
    stop: str | Iterable[str] | Callable[[str], int | None] = (),
    seed: int = 0,
    watch: Callable[[list[str]], None] | None = None,
  ) -> list[Sample]:
    """Continuations of a prompt, drawn one token after the other; see `decoding.sampling.Options` for how.

    Sample i depends on the prompt, the options and seed + i alone. stop: texts that end a sample, and are no part of
    it; or a function that says of a sample's text where it ends, None where it goes on. watch: called now and then with
    what each sample has so far. Where an option is None, config.decode says it.
    Raises UserError for options out of range, characters that the vocabulary does not have,
    and what the model cannot hold.
    """
    prompt, number = arguments.sentence(prompt, "prompt"), arguments.whole(num_samples, "num_samples", 1, 10_000)
    decode = self.config.decode
    given = lambda name, value: decode[name] if value is None else value
    options = sampling.Options(
      temperature=arguments.real(given("temperature", temperature), "temperature", 0, 1e6),
      top_k=arguments.whole(given("top_k", top_k), "top_k", 0, 10**9),
      top_p=_above_0(arguments.real(given("top_p", top_p), "top_p", 0, 1), "top_p"),
      min_p=arguments.real(given("min_p", min_p), "min_p", 0, 1),
      repetition_penalty=_above_0(
        arguments.real(given("repetition_penalty", repetition_penalty), "repetition_penalty", 0, 1e6),
        "repetition_penalty",
      ),
    )
    max_tokens = arguments.whole(given("max_tokens", max_tokens), "max_tokens", 1, 10**7)
    seed = arguments.whole(seed, "seed", 0, _MAX_SEED - number)
    cut = stop if callable(stop) else _first_of([stop] if isinstance(stop, str) else arguments.sentences(stop, "stop"))
    ids = self._prompt(prompt)
    limit = self.task.longest
    if limit is not None and len(ids) + max_tokens > limit:
      raise UserError(
        f"the prompt has {len(ids)} tokens with <s>, and the model holds {limit}: "
        + (f"ask for at most {limit - len(ids)} more (max_tokens)" if len(ids) < limit else "shorten it")
      )
    found = []
    rows = max(decode.batch_tokens // (len(ids) + max_tokens), 1)
    for first in range(0, number, rows):
      part = range(first, min(first + rows, number))
      seen = (lambda texts, done=found: watch([x.text for x in done] + texts)) if watch else None
      found += self._draw(prompt, ids, [seed + i for i in part], max_tokens, options, cut, seen)
    return found

  def _prompt(self, prompt) -> list[int]:
    """BOS and the ids of a prompt. UserError where a character is not in the vocabulary."""
    (ids,) = self.task.tokenizer.encode([prompt])
    if UNK in ids:
      unknown = getattr(self.task.tokenizer, "unknown", lambda text: _unknown(self.task.tokenizer, text))(prompt)
      raise UserError(
        f"the vocabulary does not have {', '.join(map(repr, unknown)) or 'a character of the prompt'}: "
        "leave it out of the prompt"
      )
    # Windows of a text begin anywhere in it: a prompt is the middle of a document, if there is one.
    return ids if ids and self.config.data.batching != "packed" else [BOS, *ids]

  def _draw(self, prompt, ids, seeds, max_tokens, options, cut, watch) -> list[Sample]:
    """One batch: the rows are filled up to what the devices share, and the room to a size that is compiled seldom."""
    count = len(seeds)
    rows = -(-count // self._mesh.size) * self._mesh.size
    room = padded_length(len(ids) + max_tokens)
    width = padded_length(len(ids))
    if self.task.longest is not None:
      room, width = min(room, self.task.longest), min(width, self.task.longest)
    prompt_BP = np.full((rows, min(width, room)), PAD, np.int32)
    prompt_BP[:, : len(ids)] = ids
    seeds_B = np.array([*seeds, *[0] * (rows - count)], np.uint32)
    spread = sharding.batch_sharding(self._mesh)
    length, end = len(ids), len(ids) + max_tokens
    state = self._begin(self.params, *jax.device_put((prompt_BP, seeds_B), spread), np.int32(length), room=room)
    ended = [None] * count
    for until in [*range(length + _PIECE, end, _PIECE), end]:
      state = self._advance(self.params, state, np.int32(until), options)
      tokens_BL, lengths_B, done_B = jax.device_get((state.tokens_BL, state.lengths_B, state.done_B))
      texts = []
      for b in range(count):
        new = [int(token) for token in tokens_BL[b, length : lengths_B[b]]]
        text = self._text(ids, new)
        end_of_text = cut(text)
        if ended[b] is None and (end_of_text is not None or done_B[b]):
          ended[b] = (text[:end_of_text], new)
        texts.append(ended[b][0] if ended[b] else text)
      if watch:
        watch(texts)
      if all(ended):
        break
    logprobs_BL = jax.device_get(state.logprobs_BL)
    if np.isnan(logprobs_BL[:count]).any():
      raise UserError("the model's logits are not finite: the checkpoint is of a run that has diverged, take another")
    found = []
    for b in range(count):
      text, new = ended[b] or (texts[b], [int(token) for token in tokens_BL[b, length : lengths_B[b]]])
      logprobs = logprobs_BL[b, length : length + len(new)].tolist()
      found.append(Sample(prompt, text, new, logprobs, bool(ended[b])))
    return found

  def _text(self, prompt, new) -> str:
    """What the new ids add to the prompt: pieces of a word take the space before them from what stands there."""
    drop = lambda ids: [i for i in ids if i not in (BOS, EOS, PAD)]
    before, after = self.task.tokenizer.decode([drop(prompt), drop([*prompt, *new])])
    return after.removeprefix(before)

  def _decoding(self, params, rows):
    return self.task.decoding(params, {"inputs": np.zeros((rows, 1), np.int32)}, num_beams=1)

  @functools.cached_property
  def _begin(self):
    def begin(params, prompt_BP, seeds_B, length, *, room):
      return sampling.begin(self._decoding(params, len(prompt_BP)), prompt_BP, length, seeds_B, room=room, pad=PAD)

    return jax.jit(begin, static_argnames="room")

  @functools.cached_property
  def _advance(self):
    def advance(params, state, until, options):
      step = self._decoding(params, len(state.tokens_BL)).step
      return sampling.advance(step, state, until, options, eos=EOS)

    return jax.jit(advance, donate_argnums=1)

  # Scoring and looking

  def score(self, texts: Iterable[str]) -> list[TextScore]:
    """The log-probability of each text and of each of its pieces, the end of the document included."""
    texts = arguments.sentences(texts, "texts")
    ids = [[*text, EOS] for text in self.task.tokenizer.encode(texts)]
    self._check_lengths(ids)
    found: list = [None] * len(texts)
    batches = length_batches(
      [len(text) for text in ids], batch_tokens=self.config.decode.batch_tokens, row_multiple=self._mesh.size,
      longest=self.task.longest,
    ) if ids else []  # fmt: skip
    for indices, length, rows in batches:
      batch = _rows_of([ids[i] for i in indices], rows, length)
      batch = jax.device_put(batch, sharding.batch_sharding(self._mesh))
      logprobs_BT = jax.device_get(self._forced(self.params, batch))
      for b, i in enumerate(indices):
        logprobs = logprobs_BT[b, : len(ids[i])]
        pieces = self.task.tokenizer.pieces(ids[i])
        found[i] = TextScore(texts[i], float(logprobs.sum(dtype=np.float64)), pieces, logprobs.tolist())
    return found

  def _check_lengths(self, ids):
    for i, text in enumerate(ids):
      if self.task.longest is not None and len(text) > self.task.longest:
        raise UserError(
          f"texts[{i}] has {len(text)} tokens with its end, and the model holds {self.task.longest}: shorten it"
        )

  def _logits(self, params, batch, **options):
    return self.task.model.apply({"params": params}, batch, **options)

  @functools.cached_property
  def _forced(self):
    def forced(params, batch):
      logits_BTV = self._logits(params, batch)
      return sequence_scores(logits_BTV, batch["targets"], batch["segments"], alpha=0.0).logprobs_BT

    return jax.jit(forced)

  def attention(self, text: str) -> Attention:
    """Every attention weight of one text, out of the forward pass that gives its log-probability.

    What is returned has `show()` and `page("out.html")`, and shows itself in a notebook.
    """
    text = arguments.sentence(text, "text")
    ids = [*self.task.tokenizer.encode([text])[0], EOS]
    self._check_lengths([ids])
    T = len(ids)
    length = min(padded_length(T), self.task.longest or 1 << 40)  # so that few lengths are compiled
    logprob, layers = jax.device_get(self._weights(self.params, _rows_of([ids], 1, length)))
    check_finite(logprob)
    weights = np.stack([np.asarray(layer[0, :, :T, :T], np.float32) for layer in layers]) if layers else None
    pieces = self.task.tokenizer.pieces
    return Attention(pieces([BOS, *ids[:-1]]), pieces(ids), weights, float(logprob))

  @functools.cached_property
  def _weights(self):
    def weights(params, batch):
      logits_BTV, seen = self._logits(params, batch, mutable=["intermediates"])
      scores = sequence_scores(logits_BTV, batch["targets"], batch["segments"], alpha=0.0)
      return scores.logprobs_BT.sum(), [x["weights"][0] for x in _find(seen.get("intermediates", {}), "weights")]

    return jax.jit(weights)

  def programs(self) -> programs.Programs:
    """What the model computes, for export."""
    return programs.language(self.task)

  # Evaluating

  def perplexity(self, split: str) -> dict[str, float]:
    """Of a split: nats and perplexity per token, perplexity per word (where spaces stand between words), bits per
    character and per byte.

    Each spreads the same sum over another count, so that models with other vocabularies can be compared.
    """
    return self._perplexity(split, self._figures(split))

  def _figures(self, split: str) -> dict[str, float]:
    """What the task's `summarize` says of a split."""
    if found := self._evaluate(self.params, self.variables, arguments.split_name(split)):
      return found
    raise UserError(f"the split {split!r} is empty")

  def _perplexity(self, split, found):
    words = characters = size = 0
    sample = []
    for document in self.task.source.documents(split):
      if len(sample) < 100:
        sample.append(document[:1000])
      words += len(document.split())
      characters += len(document)
      size += len(document.encode())
    nats = found["nll"] * found["weight"]
    by_word = {"perplexity_per_word": exp(nats / max(words, 1))} if has_spaces("", sample) else {}
    return {
      "nats_per_token": found["nll"],
      "perplexity_per_token": exp(found["nll"]),
      **by_word,
      "bits_per_character": nats / characters / math.log(2),
      "bits_per_byte": nats / size / math.log(2),
    }

  def evaluate(self, split: str, *, num_samples: int = 4, report=None) -> Evaluation:
    """Perplexities of a split, what else the task's `summarize` has, and samples."""
    # First: what it may have to complain of would cost the perplexities.
    samples = [{"sample": x.text} for x in self.sample("", num_samples=num_samples)]
    figures = self._figures(split)
    found = self._perplexity(split, figures)
    others = {name: value for name, value in figures.items() if name not in ("loss", "weight", "nll", "perplexity")}
    if report:
      report(1, 1)
    scores = [Score(name.replace("_", " "), value) for name, value in (found | others).items()]
    record = {"perplexity": found, **others, "samples": [sample["sample"] for sample in samples]}
    return Evaluation(scores, samples, record)

  def page(self, evaluation: Evaluation, command: str = "") -> str:
    """The HTML page about the run."""
    from attention_zoo.tasks.report import language_report

    return language_report(self, evaluation, command=command)


def _rows_of(texts, rows, length) -> dict:
  """The batch of `data/windows.py` with one text a row."""
  names = ("inputs", "targets", "segments", "positions")
  batch = {name: np.zeros((rows, length), np.int32) for name in names}
  for b, ids in enumerate(texts):
    here = slice(0, len(ids))
    batch["targets"][b, here], batch["inputs"][b, here] = ids, [BOS, *ids[:-1]]
    batch["segments"][b, here], batch["positions"][b, here] = 1, np.arange(len(ids))
  return batch


def _find(tree, name) -> Iterator[dict]:
  """The dicts of a tree that have this key, in the order of layer_0, layer_1, ..., layer_10."""
  if name in tree:
    yield tree
  for key in sorted(tree, key=lambda key: (len(key), key)):
    if isinstance(tree[key], dict):
      yield from _find(tree[key], name)


def _first_of(stops) -> Callable[[str], int | None]:
  """Where the first of these texts stands in a text, None where none does."""
  if "" in stops:
    raise UserError("stop must not hold an empty string: everything would end at once")
  return lambda text: min((at for at in (text.find(stop) for stop in stops) if at >= 0), default=None)


def _above_0(value, name):
  if value == 0:
    raise UserError(f"{name} must be above 0")
  return value


def _unknown(tokenizer, text):
  return [character for character in sorted(set(text)) if UNK in tokenizer.encode([character])[0]]
