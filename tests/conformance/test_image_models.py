"""What `tasks/image_modeling.py` asks of every model for it, beside what `test_models.py` asks of all."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_zoo import models
from attention_zoo.tasks import pixels as heads

WITHOUT = ("srez_gan",)  # a likelihood
NAMES = [name for name, path in models.MODELS.items() if path.split(".")[2] == "image" and name not in WITHOUT]
B = 2


class Made:
  """A model with random parameters, compiled once; small() says its sizes."""

  def __init__(self, name, **fields):
    self.module = models.find(name)
    self.config = dataclasses.replace(self.module.small(), **fields)
    self.head = self.config.head
    self.model = self.module.Model(self.config)
    rng = np.random.default_rng(0)
    shapes = models.batch_shapes(self.module, self.config, rows=B, length=0)
    high = {"labels": max(self.config.num_classes, 1)}
    self.batch = {
      key: jnp.asarray(rng.integers(0, high.get(key, 256), shape), jnp.int32) for key, shape in shapes.items()
    }
    abstract = jax.eval_shape(self.model.init, jax.random.key(0), self.batch)["params"]
    self.params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.3, leaf.shape), leaf.dtype), abstract)

  @functools.cached_property
  def outputs(self):
    """pixels_BYX3 -> outputs_BYXP."""
    apply = jax.jit(lambda params, batch: self.model.apply({"params": params}, batch))
    return lambda pixels: np.asarray(apply(self.params, self.batch | {"pixels": pixels}))

  @functools.cached_property
  def decoding(self):
    given = {key: value for key, value in self.batch.items() if key != "pixels"}
    if hasattr(self.module, "decoding"):
      return self.module.decoding(self.config, self.params, given)
    forward = lambda pixels: self.model.apply({"params": self.params}, self.batch | {"pixels": pixels})
    return heads.by_whole_passes(self.head, forward, self.config.size)

  def by_step(self, outputs):
    """outputs_BYXP as [B, steps, ..] in the order of the decoding."""
    width = 256 if self.head == "categorical" else outputs.shape[-1]
    return outputs.reshape(B, -1, width)[:, np.asarray(self.decoding.order)]


@pytest.fixture(scope="module", params=NAMES)
def made(request):
  return Made(request.param)


def other(pixels, place):
  """The same image, but for another value at that place."""
  return pixels.at[place].set((pixels[place] + 101) % 256)


def test_its_outputs_are_of_its_head(made):
  outputs = made.outputs(made.batch["pixels"])
  size = made.config.size
  assert made.head in heads.HEADS and outputs.dtype == np.float32
  assert outputs.shape[:3] == (B, size, size)
  assert outputs.shape[3] == 768 if made.head == "categorical" else outputs.shape[3] % 10 == 0
  logprobs = heads.log_likelihoods(made.head, jnp.asarray(outputs), made.batch["pixels"])
  assert logprobs.shape == (B, size, size, 3) and (np.asarray(logprobs) < 0).all()


def test_the_order_of_the_decoding_is_a_permutation(made):
  size = made.config.size
  assert sorted(np.asarray(made.decoding.order)) == [*range(size * size * (3 if made.head == "categorical" else 1))]


def test_a_value_sees_those_before_it_in_the_order_alone(made):
  """Of every step, all that it is about is changed: what that step and those before it give stays, to the bit."""
  order = np.asarray(made.decoding.order)
  pixels = made.batch["pixels"]
  first = made.by_step(made.outputs(pixels))
  seen = False
  for i, at in enumerate(order):
    place = np.unravel_index(at, pixels.shape[1:] if made.head == "categorical" else pixels.shape[1:3])
    changed = made.by_step(made.outputs(other(pixels, np.index_exp[0] + place))) != first
    assert not changed[1].any(), "images are independent"
    assert not changed[0, : i + 1].any(), i
    seen |= changed[0, i + 1 :].any()
  assert seen or made.module.__name__.endswith(("factorised", "resnet_sr"))


def test_steps_give_what_the_whole_image_gives(made):
  """Behind the step stands rubbish."""
  pixels = made.batch["pixels"]
  wanted = made.by_step(made.outputs(pixels))
  order = np.asarray(made.decoding.order)
  step, cache = jax.jit(made.decoding.step), made.decoding.cache
  flat = pixels.reshape(B, len(order), -1)
  found = []
  for i in range(len(order)):
    later = np.isin(np.arange(len(order)), order[i:])[None, :, None]
    outputs, cache = step(jnp.where(later, 77, flat).reshape(pixels.shape), jnp.int32(i), cache)
    found.append(outputs)
  np.testing.assert_allclose(np.stack(found, 1), wanted, rtol=2e-4, atol=2e-4)


def test_hidden_outputs_times_the_table_are_the_logits(made):
  table_VD = made.module.output_table(made.params) if hasattr(made.module, "output_table") else None
  if table_VD is None:
    pytest.skip("its outputs are whole")
  hidden_BYX3D = made.model.apply({"params": made.params}, made.batch, method="hidden")
  outputs = jnp.einsum("BYXCD,VD->BYXCV", hidden_BYX3D, table_VD)
  np.testing.assert_allclose(outputs.reshape(B, *outputs.shape[1:3], -1), made.outputs(made.batch["pixels"]), atol=1e-4)
