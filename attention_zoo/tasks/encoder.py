"""What trained encoders have in common, whatever their head: evaluation, and the vectors of texts."""

import functools
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np

from attention_zoo.data import examples
from attention_zoo.errors import UserError
from attention_zoo.tasks import arguments
from attention_zoo.tasks.encoding import finite
from attention_zoo.tasks.run import Run
from attention_zoo.training import sharding

_SHOWN = 20  # samples of an evaluation


class EncoderRun(Run):
  """Base of what `attention_zoo.load` returns for an encoder. Work is spread over all devices of this process."""

  # Running the model

  def vectors(self, texts: Iterable) -> list[np.ndarray]:
    """The encoder's output at each token of each text, float32 [tokens, D]; texts: as the run's other verbs take them,
    single sentences or pairs. Tokens are those of <s> first </s> second </s>."""
    sentences = self.texts(texts)
    encoded = self.task.encode_texts(sentences, [{}] * len(sentences))
    return [x[: len(e.ids)] for x, e in zip(self._run(encoded, self._hidden), encoded, strict=True)]

  def texts(self, texts) -> list[tuple[str, ...]]:
    """The sentences of each text. Raises UserError for what is neither a text nor a pair of them, and for an empty
    one."""
    if isinstance(texts, (str, bytes)):
      raise UserError("texts must be a list of texts, or of pairs of them, not a single text")
    found = []
    for i, text in enumerate(texts):
      sentences = (text,) if isinstance(text, str) else tuple(text) if isinstance(text, (tuple, list)) else ()
      if len(sentences) not in (1, 2) or not all(isinstance(sentence, str) for sentence in sentences):
        raise UserError(f"texts[{i}] must be a text or a pair of texts, not {type(text).__name__} ({text!r:.60})")
      if not all(sentence.strip() for sentence in sentences):
        raise UserError(f"texts[{i}] {'is empty' if len(sentences) == 1 else 'has an empty sentence'}")
      found.append(sentences)
    return found

  def _run(self, encoded, function) -> list[np.ndarray]:
    """What a jitted function of (params, batch) returns for each example, an array with the rows first."""
    found = [None] * len(encoded)
    length = self.config.data.row_length
    rows = max(self.config.decode.batch_tokens // length // self._mesh.size, 1) * self._mesh.size
    spread = sharding.batch_sharding(self._mesh)
    for indices, batch in examples.in_batches(encoded, rows=rows, length=length):
      batch = {name: batch[name] for name in batch if name not in self.task.LABEL_SHAPES or name in self._READ}
      out = jax.device_get(function(self.params, jax.device_put(batch, spread)))
      for b, i in enumerate(indices):
        found[i] = finite(out[b])
    return found

  _READ = ()  # of the labels of an example, those that its output needs

  @functools.cached_property
  def _hidden(self):
    return jax.jit(lambda params, batch: self.task.encoded(params, batch, None)[0].astype(jnp.float32))

  @functools.cached_property
  def _scores(self):
    return jax.jit(lambda params, batch: self.task.scores(params, batch)[0])

  # Evaluating

  def _examples(self, split) -> list:
    if found := self.task.examples(arguments.split_name(split)):
      return found
    raise UserError(f"the split {split!r} is empty")

  def page(self, evaluation, command: str = "") -> str:
    """The HTML page about the run."""
    from attention_zoo.tasks.report import task_report

    headline = [score.name for score in evaluation.scores[:2]]
    samples = evaluation.samples[:_SHOWN]
    return task_report(self, self.config.model.name, evaluation, headline=headline, samples=samples, command=command)
