"""What CoVe takes from a translation model: by name, and as that computes it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from attention_zoo.models.pretraining import cove
from attention_zoo.models.seq2seq import bahdanau
from tests.ops.against import assert_close


def test_it_reads_what_the_translation_model_attends_to():
  there, here = bahdanau.small(), cove.small()
  here = dataclasses.replace(here, d_embedding=there.d_model, d_encoder=there.d_hidden, encoder_tuned=False)
  tokens_BT, segments_BT = jnp.array([[1, 2, 3, 4], [5, 6, 1, 0]]), jnp.array([[1, 1, 1, 1], [1, 1, 1, 0]])
  source = {"source": tokens_BT, "source_segments": segments_BT}
  batch = source | {"inputs": tokens_BT, "target_segments": segments_BT}
  translation = bahdanau.Model(there).init(jax.random.key(0), batch)["params"]
  batch = {"inputs": tokens_BT, "segments": segments_BT}
  model = cove.Model(here)
  params = model.init(jax.random.key(1), batch)["params"]
  taken = {name: translation[name] for name in params if name in translation}
  assert set(taken) == {"source_embedding", "encoder"}
  assert jax.tree.map(jnp.shape, taken) == jax.tree.map(jnp.shape, {name: params[name] for name in taken})
  params |= taken
  read, _ = bahdanau.Model(there).apply({"params": translation}, tokens_BT, segments_BT, method="encode")
  memory_BTU = np.asarray(read["memory"]["values"][:, :, 0])
  vectors_BTU = model.apply({"params": params}, batch, method="vectors")
  real_BT = np.asarray(segments_BT) > 0
  assert_close(vectors_BTU[..., there.d_model :][real_BT], memory_BTU[real_BT])
  gradients = jax.grad(lambda params: jnp.square(model.apply({"params": params}, batch)).sum())(params)
  for path, gradient in jax.tree_util.tree_leaves_with_path(gradients):
    name = "/".join(key.key for key in path)
    assert bool(gradient.any()) == name.startswith("reader/")
    assert cove.learning_rate_factor(here, name, 0) == float(name.startswith("reader/"))
  assert cove.learning_rate_factor(dataclasses.replace(here, encoder_tuned=True), "encoder/forward/bias_A", 0) == 1.0
