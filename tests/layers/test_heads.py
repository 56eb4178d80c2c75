"""What stands for a row, and heads on it."""

import jax
import numpy as np
import pytest

from attention_zoo.layers import heads


def test_pooling_looks_at_no_padding():
  rng = np.random.default_rng(0)
  x = rng.normal(size=(4, 5, 3)).astype(np.float32)
  lengths = [5, 2, 1, 0]
  segments = (np.arange(5)[None] < np.array(lengths)[:, None]).astype(np.int32)
  for b, length in enumerate(lengths[:3]):
    real = x[b, :length]
    wanted = {"first": real[0], "last": real[-1], "mean": real.mean(0), "max": real.max(0)}
    wanted["concat"] = np.concatenate([wanted["last"], wanted["max"], wanted["mean"]])
    for kind in heads.POOLINGS:
      np.testing.assert_allclose(heads.pool(kind, x, segments)[b], wanted[kind], rtol=1e-6)
  spoilt = np.where(segments[:, :, None] > 0, x, np.float32(1e9))
  for kind in ("last", "mean", "max", "concat"):
    np.testing.assert_array_equal(heads.pool(kind, x, segments)[:3], heads.pool(kind, spoilt, segments)[:3])
  assert not heads.pool("mean", x, segments)[3].any() and not heads.pool("max", x, segments)[3].any()
  with pytest.raises(ValueError, match="no pooling 'middle'"):
    heads.pool("middle", x, segments)


def test_a_classifier_with_and_without_a_hidden_layer():
  x = np.random.default_rng(0).normal(size=(2, 6)).astype(np.float32)
  for width, names in ((0, {"output"}), (5, {"hidden", "output"})):
    head = heads.Classifier(3, dropout=0.5, width=width)
    params = jax.device_get(head.init(jax.random.key(0), x)["params"])
    assert set(params) == names
    hidden = x
    if width:
      hidden = np.maximum(x @ params["hidden"]["kernel_UF"] + params["hidden"]["bias_F"], 0)
    wanted = hidden @ params["output"]["kernel_UO"] + params["output"]["bias_O"]
    np.testing.assert_allclose(head.apply({"params": params}, x), wanted, rtol=1e-5, atol=1e-6)
    noisy = head.apply({"params": params}, x, train=True, rngs={"dropout": jax.random.key(1)})
    assert np.isfinite(noisy).all() and (np.asarray(noisy) != wanted).any()


def test_the_head_of_masks():
  x, pooled = (np.random.default_rng(0).normal(size=shape).astype(np.float32) for shape in ((2, 3, 4), (2, 4)))
  head = heads.MaskedTokens(7)
  params = jax.device_get(head.init(jax.random.key(0), (x, pooled))["params"])
  features, bias, following = head.apply({"params": params}, (x, pooled))
  assert features.shape == (2, 3, 5) and (features[..., -1] == 1).all() and bias.shape == (7,)
  wanted = pooled @ params["next_sentence"]["kernel_UO"] + params["next_sentence"]["bias_O"]
  np.testing.assert_allclose(following, wanted, rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(features[..., :-1].mean(-1), 0, atol=1e-5)
  alone = heads.MaskedTokens(7).init(jax.random.key(0), (x, None))["params"]
  assert set(params) - set(alone) == {"next_sentence"}
