"""BERT against a float64 loop written from the paper, and its published numbers of parameters."""

import math

import jax
import numpy as np
import pytest

from attention_zoo import models
from attention_zoo.models.pretraining import bert, gpt

B, T = 2, 5


def oracle(params, config, batch):
  """(BTD, BU), row by row, token by token where it is not a matrix product."""
  p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)

  def norm(x, q):
    deviation = np.sqrt(x.var(-1, keepdims=True) + config.norm_epsilon)
    return (x - x.mean(-1, keepdims=True)) / deviation * q["scale"] + q["bias"]

  erf = np.vectorize(math.erf)
  hidden = []
  for b in range(len(batch["inputs"])):
    x = np.stack([
      p["embedding"]["table_VD"][batch["inputs"][b, t]] + p["positions"]["table_TD"][batch["positions"][b, t]]
      + p["types"]["table_2D"][batch["types"][b, t]] for t in range(T)
    ])  # fmt: skip
    x = norm(x, p["embedding_norm"])
    for i in range(config.num_layers):
      q = p["encoder"][f"layer_{i}"]
      attention = q["self_attention"]
      out = np.zeros_like(x)
      for n in range(config.num_heads):
        project = lambda name, l, n=n, attention=attention, x=x: (
          x @ attention[name][f"kernel_DN{l}"][:, n] + attention[name][f"bias_N{l}"][n]
        )
        queries, keys, values = project("query", "K"), project("key", "K"), project("value", "H")
        for t in range(T):
          seen = [s for s in range(T) if batch["segments"][b, s] == batch["segments"][b, t] > 0]
          if seen:
            logits = np.array([queries[t] @ keys[s] for s in seen]) / np.sqrt(config.d_k)
            weights = np.exp(logits - logits.max())
            head = (weights / weights.sum()) @ values[seen]
            out[t] += head @ attention["output"]["kernel_NHD"][n]
      x = norm(x + out + attention["output"]["bias_D"], q["self_attention_norm"])
      wi, wo = q["feed_forward"]["wi"], q["feed_forward"]["wo"]
      inner = x @ wi["kernel_DF"] + wi["bias_F"]
      inner = inner * (1 + erf(inner / np.sqrt(2))) / 2
      x = norm(x + inner @ wo["kernel_FD"] + wo["bias_D"], q["feed_forward_norm"])
    hidden.append(x)
  hidden = np.stack(hidden)
  return hidden, np.tanh(hidden[:, 0] @ p["pooler"]["kernel_DU"] + p["pooler"]["bias_U"])


def test_it_computes_what_the_paper_says():
  config = bert.small()
  rng = np.random.default_rng(0)
  batch = {"inputs": rng.integers(0, config.vocab_size, (B, T)), "types": rng.integers(0, 2, (B, T))}
  batch |= {"segments": np.array([[1] * 5, [1, 1, 1, 0, 0]]), "positions": np.tile(np.arange(T), (B, 1))}
  batch = {name: np.asarray(x, np.int32) for name, x in batch.items()}
  model = bert.Model(config)
  shapes = jax.eval_shape(model.init, jax.random.key(0), batch)["params"]
  params = jax.tree.map(lambda x: rng.normal(0, 0.5, x.shape).astype(np.float32), shapes)
  for found, wanted in zip(model.apply({"params": params}, batch), oracle(params, config, batch), strict=True):
    real = np.s_[:] if found.ndim == 2 else batch["segments"] > 0
    np.testing.assert_allclose(found[real], wanted[real], rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize(
  ("name", "fields", "count"),
  [
    ("bert", dict(vocab_size=30_522), 109_482_240),
    (
      "bert", dict(vocab_size=30_522, d_model=1024, d_ff=4096, num_heads=16, num_layers=24), 335_141_888
    ),
    # Of RoBERTa-base the published 124,645,632 less the two rows of positions that are never used.
    ("bert", dict(vocab_size=50_265, num_types=1, norm_epsilon=1e-5), 124_645_632 - 2 * 768),
    ("gpt", dict(vocab_size=40_478), 116_534_784),
    ("transformer_lm", dict(vocab_size=50_257), 124_439_808),
    ("transformer_lm", dict(vocab_size=50_257, d_model=1024, d_ff=4096, num_heads=16, num_layers=24), 354_823_168),
    ("transformer_lm", dict(vocab_size=50_257, d_model=1280, d_ff=5120, num_heads=20, num_layers=36), 774_030_080),
    ("transformer_lm", dict(vocab_size=50_257, d_model=1600, d_ff=6400, num_heads=25, num_layers=48), 1_557_611_200),
    ("xlnet", dict(vocab_size=32_000), 116_718_336),
  ],
)  # fmt: skip
def test_published_numbers_of_parameters(name, fields, count):
  module = models.find(name)
  assert module.parameter_count(module.Config(**fields)) == count


def test_what_does_not_go_together():
  with pytest.raises(ValueError, match="num_types must be from 1 to 9"):
    bert.Config(vocab_size=5, num_types=10)
  without = bert.Config(**{**vars(bert.small()), "pooler": False})
  assert bert.parameter_count(bert.small()) - bert.parameter_count(without) == 8 * 9
  with pytest.raises(ValueError, match="nothing pooled"):
    bert.Model(without).apply({"params": {}}, np.zeros((1, 2, 8), np.float32), method="pooled")
  assert gpt.Config(vocab_size=5).residual == "post" and gpt.Config(vocab_size=5).max_length == 512
