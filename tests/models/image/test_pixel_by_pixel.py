"""What is special about the models that generate pixel by pixel: how much of the past each sees, labels, sizes."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_zoo import models
from attention_zoo.tasks import pixels as heads

SIZE = 6
# The models at sizes that reach over the whole image, and whether a pixel then sees all of its past.
MODELS = {
  "gated_pixelcnn": (dict(num_layers=2, num_classes=3, first_kernel_size=7, features=9, output_features=24), True),
  "pixelcnn_pp": (dict(num_classes=3, num_blocks=2, num_levels=2), True),
  "pixel_snail": (dict(num_classes=3, num_blocks=1), True),
  "pixel_rnn": (dict(num_layers=1, d_hidden=6, output_features=24), True),
  "pixel_rnn, rows": (dict(layer="row_lstm", num_layers=1, d_hidden=6, output_features=24), False),
}


class Made:
  """A model with random parameters on floats, so that pixels have gradients."""

  def __init__(self, name):
    fields, self.sees_all = MODELS[name]
    self.module = models.find(name.partition(",")[0])
    self.config = dataclasses.replace(self.module.small(), size=SIZE, **fields)
    self.model = self.module.Model(self.config)
    rng = np.random.default_rng(0)
    self.pixels = jnp.asarray(rng.integers(0, 256, (2, SIZE, SIZE, 3)))
    self.labels = jnp.array([0, 1])
    abstract = jax.eval_shape(self.model.init, jax.random.key(0), self.batch(self.pixels))["params"]
    self.params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.3, leaf.shape), leaf.dtype), abstract)

  def batch(self, pixels, labels=None):
    return {"pixels": pixels, "labels": self.labels if labels is None else labels}

  @functools.cached_property
  def outputs(self):
    return jax.jit(lambda pixels, labels: self.model.apply({"params": self.params}, self.batch(pixels, labels)))

  @functools.cached_property
  def gradient(self):
    """Of a sum of outputs, which weights_YXP says, in the pixels of the first image."""

    def pick(pixels, weights_YXP):
      return (self.model.apply({"params": self.params}, self.batch(pixels))[0] * weights_YXP).sum()

    return jax.jit(jax.grad(pick))

  def seen(self, y, x, part=slice(None)):
    """bool [Y, X, 3]: which values what is said of a pixel has a gradient in."""
    shape = jax.eval_shape(self.outputs, self.pixels, self.labels).shape[1:]
    weights = np.zeros(shape, np.float32)
    weights[y, x, part] = np.random.default_rng(1).normal(size=weights[y, x, part].shape)
    return np.asarray(self.gradient(self.pixels.astype(jnp.float32), weights)[0]) != 0


@pytest.fixture(scope="module", params=MODELS)
def made(request):
  return Made(request.param)


@pytest.mark.parametrize("place", [(0, 0), (0, 3), (3, 2), (5, 5)])
def test_a_pixel_sees_the_past_and_nothing_else(made, place):
  y, x = place
  seen = made.seen(y, x)
  past = np.zeros((SIZE, SIZE), bool)
  past[:y], past[y, :x] = True, True
  if made.config.head == "dmol":
    assert not seen[~past].any()
  else:
    assert not np.delete(seen.reshape(-1, 3), [*np.flatnonzero(past), y * SIZE + x], 0).any()
    assert seen[y, x].tolist() == [True, True, False]  # blue is said after red and green
  if made.sees_all:
    assert seen[past].any(-1).all()
  elif y:
    triangle = abs(np.arange(SIZE) - x) <= 1
    assert seen[y - 1, triangle].any(-1).all()


def test_colours_follow_each_other(made):
  if made.config.head == "dmol":
    pytest.skip("the mixture sees to it")
  for colour in range(3):
    seen = made.seen(2, 2, slice(256 * colour, 256 * (colour + 1)))
    assert seen[2, 2].tolist() == [other < colour for other in range(3)]


def test_labels_matter_where_there_are_classes(made):
  first, second = made.outputs(made.pixels, jnp.array([0, 1])), made.outputs(made.pixels, jnp.array([2, 1]))
  assert np.any(first[0] != second[0]) == bool(made.config.num_classes)
  np.testing.assert_array_equal(first[1], second[1])


def test_parameters_are_counted(made):
  assert sum(leaf.size for leaf in jax.tree.leaves(made.params)) == made.module.parameter_count(made.config)


def test_what_is_drawn_without_temperature_is_what_teacher_forcing_would_choose(made):
  """The whole image in one jit; known pixels stay."""
  size, head = SIZE, made.config.head
  forward = lambda pixels: made.model.apply({"params": made.params}, made.batch(pixels))
  known = jnp.broadcast_to((jnp.arange(size) < 3)[:, None], (2, size, size))

  @jax.jit
  def draw(pixels, seeds):
    return heads.draw(heads.by_whole_passes(head, forward, size), head, pixels, known, seeds, 0.0)

  drawn = draw(made.pixels, jnp.array([3, 4], jnp.uint32))
  np.testing.assert_array_equal(drawn[:, :3], made.pixels[:, :3])
  outputs = np.asarray(made.outputs(drawn, made.labels))
  if head == "categorical":
    logits = outputs.reshape(2, size, size, 3, 256)
    chosen = np.take_along_axis(logits, np.asarray(drawn)[..., None], -1)[..., 0]
    assert (logits.max(-1) - chosen)[:, 3:].max() < 1e-4
  else:
    from attention_zoo.ops import dmol

    likeliest = np.asarray(dmol.sample(jnp.asarray(outputs), 3, jax.random.key(0), temperature=0.0))
    assert np.abs(likeliest - np.asarray(drawn))[:, 3:].max() <= 1  # rounding


def test_dropout_is_for_training(made):
  if not hasattr(made.config, "dropout") or made.module.__name__.endswith("snail"):
    pytest.skip("the paper has none, or it has PixelCNN++'s")
  model = made.module.Model(dataclasses.replace(made.config, dropout=0.5))
  apply = jax.jit(
    lambda rng, train: model.apply(
      {"params": made.params}, made.batch(made.pixels), train=train, rngs={"dropout": rng}
    ),
    static_argnums=1,
  )
  first, second = jax.random.split(jax.random.key(0))
  assert np.any(apply(first, True) != apply(second, True))
  np.testing.assert_array_equal(apply(first, False), apply(second, False))


@pytest.mark.parametrize(
  ("name", "fields", "message"),
  [
    ("pixel_rnn", dict(num_classes=4), "takes no labels: set config.data.num_classes to 0, not 4"),
    ("pixel_rnn", dict(layer="column_lstm"), "model.layer must be one of"),
    ("pixel_rnn", dict(first_kernel_size=4), "model.first_kernel_size must be odd, got 4"),
    ("gated_pixelcnn", dict(kernel_size=2), "model.kernel_size must be odd, got 2"),
    ("gated_pixelcnn", dict(features=2), "model.features must be at least 3, one for each colour, got 2"),
    ("gated_pixelcnn", dict(dtype="float16"), "model.dtype must be one of"),
    ("pixelcnn_pp", dict(size=6, num_levels=3), "its size 6 is not divisible by 4"),
    ("pixelcnn_pp", dict(dropout=1.5), "model.dropout must be from 0 to 1, got 1.5"),
    ("pixel_snail", dict(num_blocks=0), "model.num_blocks must be at least 1, got 0"),
  ],
)
def test_bad_sizes_are_told(name, fields, message):
  with pytest.raises(ValueError, match=message):
    dataclasses.replace(models.find(name).small(), **fields)
