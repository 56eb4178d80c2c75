"""RNNsearch against loops written from appendix A of the paper."""

import jax
import numpy as np
import pytest

from attention_zoo.models.seq2seq import bahdanau
from tests.models.seq2seq import cases


def loops(p, source, inputs, dropout=None):
  xs = p["source_embedding"]["table_VD"][source]
  forward = [h for (h,) in cases.read("gru", p["encoder"]["forward"], xs)]
  backward = [h for (h,) in cases.read("gru", p["encoder"]["backward"], xs, reverse=True)]
  annotations = [np.concatenate(pair) for pair in zip(forward, backward, strict=True)]
  attention = p["cross_attention"]
  s, logits = np.tanh(backward[0] @ p["initial_FF"]), []
  for token in inputs:
    y = p["target_embedding"]["table_VD"][token]
    e = [attention["score_K"] @ np.tanh(s @ attention["query_FK"] + h @ attention["key_UK"]) for h in annotations]
    c = sum(a * h for a, h in zip(cases.softmax(np.array(e)), annotations, strict=True))
    t = np.concatenate([s, y, c]) @ p["readout_UA"] + p["bias_readout_A"]
    t = np.array([max(t[2 * j], t[2 * j + 1]) for j in range(len(t) // 2)])
    logits.append(p["output"]["table_VD"] @ t)
    (s,) = cases.gru(p["decoder"], y, (s,), extra=[c])
  return np.array(logits)


def test_is_the_papers_equations():
  cases.assert_is_the_papers(bahdanau, bahdanau.small(), loops)


def test_one_device_equals_eight():
  cases.assert_one_device_equals_eight(bahdanau, bahdanau.small())


def test_the_paper_counts():
  """The sizes of appendix A; the vocabulary's tables apart."""
  config = bahdanau.Config(vocab_size=30_000)
  encoder = 2 * (3 * 1000 * 620 + 3 * 1000 * 1000 + 3000)
  decoder = 3 * 1000 * 620 + 3 * 1000 * 1000 + 3 * 1000 * 2000 + 3000 + 1000 * 1000
  attention, readout = 1000 * 1000 + 1000 * 2000 + 1000, 1000 * (1000 + 620 + 2000) + 1000
  tables = 30_000 * (620 + 620 + 500)
  assert bahdanau.parameter_count(config) == tables + encoder + decoder + attention + readout


def test_recurrent_kernels_begin_orthogonal():
  kernel = np.asarray(bahdanau.orthogonal_blocks(jax.random.key(0), (6, 18)))
  for block in np.split(kernel, 3, 1):
    np.testing.assert_allclose(block @ block.T, np.eye(6), atol=1e-5)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"dtype": "float16"}, r"model\.dtype must be one of"),
    ({"d_maxout": 0}, r"model\.d_maxout must be at least 1, got 0"),
    ({"dropout": 1.5}, r"model\.dropout must be from 0 to 1"),
    ({"init_scale": 0.0}, r"model\.init_scale must be above 0"),
  ],
)
def test_bad_configs_are_told(change, message):
  with pytest.raises(ValueError, match=message):
    bahdanau.Config(vocab_size=11, **change)
