"""What is special about non-local networks: blocks that reach everywhere, begin as the identity, and have a control."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_zoo.models.vision import nonlocal_net
from attention_zoo.models.vision.nonlocal_net import FORMS, NonLocal, NonLocalNet


def config(**fields):
  return dataclasses.replace(nonlocal_net.small(), **fields)


def drawn(model, *inputs, seed=0):
  """Random parameters, the zeros of a block's end too."""
  shapes = jax.eval_shape(model.init, jax.random.key(0), *inputs)["params"]
  rng = np.random.default_rng(seed)
  return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.3, leaf.shape), leaf.dtype), shapes)


@pytest.mark.parametrize("form", FORMS)
def test_a_block_reaches_everywhere_but_its_control(form):
  block = NonLocal(config(form=form))
  (x,) = (jnp.asarray(np.random.default_rng(1).normal(size=(1, 6, 6, 4)), jnp.float32),)
  params = drawn(block, x)
  gradient = jax.jit(jax.grad(lambda x: block.apply({"params": params}, x)[0, 0, 0].sum()))(x)
  seen = np.asarray(gradient)[0].any(-1)
  # Keys are pooled: of each 2 x 2 positions the largest value counts, by channel. "concatenation" has a ReLU.
  windows = seen.reshape(3, 2, 3, 2).any((1, 3))
  if form == "local":
    assert seen.sum() == 1
  elif form == "concatenation":
    assert windows.sum() > 4
  else:
    assert windows.all()


@pytest.mark.parametrize("form", FORMS)
def test_blocks_begin_as_the_identity(form):
  batch = {"pixels": jnp.asarray(np.random.default_rng(2).integers(0, 256, (2, 8, 8, 3)))}
  c = config(form=form)
  params = jax.jit(NonLocalNet(c).init)(jax.random.key(0), batch)["params"]
  assert sum(leaf.size for leaf in jax.tree.leaves(params)) == nonlocal_net.parameter_count(c)
  without = {name: part for name, part in params.items() if "nonlocal" not in name}
  assert len(without) == len(params) - 1
  logits = jax.jit(NonLocalNet(c).apply)({"params": params}, batch)
  np.testing.assert_array_equal(
    logits, jax.jit(NonLocalNet(config(nonlocal_blocks=(0, 0))).apply)({"params": without}, batch)
  )


def test_the_control_has_as_many_parameters():
  count = lambda form: nonlocal_net.parameter_count(config(form=form))
  assert count("local") == count("embedded_gaussian") == count("dot_product")


def test_the_papers_blocks_follow_every_other_one():
  paper = nonlocal_net.Config(size=224, num_classes=400)
  assert [paper.nonlocal_after(stage) for stage in range(4)] == [set(), {1, 3}, {1, 3, 5}, set()]
  assert nonlocal_net.parameter_count(paper) == pytest.approx(24.3e6 + 2 * 2 * 512**2 + 3 * 2 * 1024**2, rel=0.02)


def test_a_videos_images_meet_in_the_blocks():
  """Without pooling of time and blocks, the order of images does not matter to the mean; one image is a short video."""
  rng = np.random.default_rng(3)
  video = jnp.asarray(rng.integers(0, 256, (1, 2, 8, 8, 3)))
  c = config(form="embedded_gaussian")
  model = NonLocalNet(c)
  params = drawn(model, {"pixels": video})
  apply = jax.jit(lambda x: model.apply({"params": params}, {"pixels": x}))
  close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
  close(apply(video[:, :1]), apply(video[:, 0]))
  close(apply(video[:, ::-1]), apply(video))
  assert np.abs(apply(video) - apply(jnp.asarray(rng.integers(0, 256, video.shape)))).max() > 1e-3


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    (dict(form="cosine"), "model.form must be one of"),
    (dict(widths=(4,)), "must have a number for each stage"),
    (dict(nonlocal_blocks=(0, 3)), "a stage of 2 blocks cannot have 3 non-local ones"),
    (dict(num_classes=0), "a classifier needs config.data.num_classes of at least 2"),
    (dict(stem_stride=3), "model.stem_stride must be 1 or 2"),
    (dict(strides=(1, 0)), "must be at least 1"),
  ],
)
def test_bad_sizes_are_told(fields, message):
  with pytest.raises(ValueError, match=message):
    config(**fields)
