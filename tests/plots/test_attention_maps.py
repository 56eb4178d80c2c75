"""Heat maps: the right weights beside the right tokens, and tokens that cannot break out."""

import json
import re

import numpy as np
import pytest

from attention_zoo.plots import attention

QUERIES = ["▁Zü", "rich", "</s>"]
KEYS = ["▁<script>alert(1)</script>", r'"$\x_1$', "日", "</s>"]


def weights(layers=2, heads=3, queries=QUERIES, keys=KEYS):
  w = np.random.default_rng(0).random((layers, heads, len(queries), len(keys)))
  return w / w.sum(-1, keepdims=True)


def ticks(axis):
  return [label.get_text() for label in axis.get_ticklabels()]


def test_figure_of_one_head(tmp_path):
  w = weights()[0, 1]
  fig = attention.attention_figure(w, QUERIES, KEYS, "Größe $")
  axes, bar = fig.axes
  fig.savefig(tmp_path / "one.png")  # warnings are errors: every glyph is there, no dollar sign is parsed
  assert ticks(axes.yaxis) == ["·Zü", "rich", "</s>"]
  assert ticks(axes.xaxis) == ["·<script>alert(1)</script>", r'"$\x_1$', "□", "</s>"]
  np.testing.assert_array_equal(axes.images[0].get_array(), w)
  assert axes.images[0].get_clim() == (0, 1)
  assert bar.get_ylabel() == "attention weight" and fig.get_suptitle() == "Größe $"


def test_figure_of_the_heads_of_a_layer(tmp_path):
  w = weights(1, 6)[0]
  fig = attention.attention_figure(w, QUERIES, KEYS)
  fig.savefig(tmp_path / "heads.png")
  panels = [axes for axes in fig.axes if axes.images]
  assert [axes.get_title(loc="left") for axes in panels] == [f"head {i}" for i in range(1, 7)]
  np.testing.assert_array_equal(panels[5].images[0].get_array(), w[5])
  assert sum(axes.get_visible() for axes in fig.axes) == 7  # two of the eight places are empty; one bar


def test_figure_of_layers_by_heads(tmp_path):
  w = weights(2, 3)
  fig = attention.attention_figure(w, QUERIES, KEYS)
  fig.savefig(tmp_path / "grid.png")
  panels = [axes for axes in fig.axes if axes.images]
  assert panels[4].get_title(loc="left") == "layer 2, head 2"
  np.testing.assert_array_equal(panels[4].images[0].get_array(), w[1, 1])


@pytest.mark.parametrize(
  "change, message",
  [
    (lambda w: w * 1.1, r"Row \(0, 0, 0\).* sums to 1.1"),
    (lambda w: np.where(np.arange(4) == 1, np.nan, w), "no distribution"),
    (lambda w: w + np.array([1.0, -1, 0, 0]), "no distribution"),
    (lambda w: w[..., :3], r"do not fit 3 query, 4 key"),
    (lambda w: w[:, :, :0], "do not fit"),
  ],
  ids=["sum", "nan", "negative", "shape", "empty"],
)
def test_what_is_no_attention_is_refused(change, message):
  with pytest.raises(ValueError, match=message):
    attention.attention_html(change(weights()), QUERIES, KEYS)
  with pytest.raises(ValueError, match=message):
    attention.attention_figure(change(weights()), QUERIES, KEYS)


def test_a_wrong_row_is_named():
  w = weights()
  w[1, 2, 0, 0] += 0.5
  with pytest.raises(ValueError, match=r"Row \(1, 2, 0\)"):
    attention.attention_html(w, QUERIES, KEYS)


def test_rows_in_bfloat16_pass():
  attention.check_weights(np.full((1, 3), 0.33203125), ["a"], ["a", "b", "c"])


def test_viewer_needs_all_layers():
  with pytest.raises(ValueError, match=r"\[L, N, T, S\]"):
    attention.attention_viewer(weights()[0], QUERIES, KEYS)


def test_viewer_holds_the_weights():
  w = weights()
  text = attention.attention_html(w, QUERIES, KEYS, "Zürich <&>")
  data = np.array(json.loads(re.search(r'<script type="application/json">(.*?)</script>', text)[1])) / 1000
  assert data.shape == (2, 4, 12)  # the mean, then the three heads
  np.testing.assert_allclose(data[:, 0], w.mean(1).reshape(2, 12), atol=5.1e-4)
  np.testing.assert_allclose(data[:, 1:], w.reshape(2, 3, 12), atol=5.1e-4)
  shown = [float(o) for o in re.findall(r'fill-opacity="([^"]+)"', text)]
  np.testing.assert_allclose(shown, w[1].mean(0).ravel(), rtol=5.1e-3)
  checked = re.findall(r'name="(\w+)" value="(\d+)" checked', text)
  assert checked == [("layer", "1"), ("head", "0")]


def test_one_head_has_no_mean():
  text = attention.attention_html(weights(1, 1), QUERIES, KEYS)
  assert "<span>mean</span>" not in text and text.count('name="head"') == 1


def test_tokens_are_escaped():
  text = attention.attention_html(weights(), QUERIES, KEYS, "<img src=x onerror=alert(1)>")
  assert "<script>alert" not in text and "<img" not in text
  assert 'data-token="·&lt;script&gt;alert(1)&lt;/script&gt;"' in text
  assert 'data-token="&quot;$\\x_1$"' in text and ">日</text>" in text
  # The data and the one script of the viewer's own.
  assert len(re.findall("<script", text)) == 2


def test_a_long_token_is_cut_in_the_map_and_kept_for_the_reader():
  token = "▁" + "Donaudampfschifffahrt" * 3
  text = attention.attention_html(weights(1, 1, [token], ["a"]), [token], ["a"])
  assert f'data-token="{token.replace("▁", "·")}"' in text and "DonaudampfschifffahrtD…</text>" in text


def test_a_fragment_is_no_document():
  text = attention.attention_fragment(weights(), QUERIES, KEYS)
  assert text.startswith('<div class="zoo">') and "<html" not in text and "<body" not in text
  # Its style must leave the notebook around it alone.
  style = re.search("<style>(.*?)</style>", text, re.S)[1]
  style = re.sub(r":is\([^)]*\) (?=\.zoo )", "", style)  # in which notebook; what is styled comes behind
  selectors = re.findall(r"(?:^|\})\s*([^{}@]+)\{", style)
  assert selectors and all(
    part.strip().startswith((".zoo", "body.zoo")) for s in selectors for part in s.split(",")
  )


@pytest.mark.parametrize("keys", [["a", "b", "</s>"], ["▁a", "</s>"], ["Donaudampfschiffahrt", "x", "</s>"]])
def test_no_key_is_cut_off(keys):
  """A key begins above its column and rises at 60 degrees; a character of 13 px is 7.83 px wide,
  its foot 3.1 px deep."""
  weights = np.full((1, 1, 1, len(keys)), 1 / len(keys))
  text = attention.attention_viewer(weights, ["q"], keys)
  width = float(re.search(r'<svg [^>]*width="(\d+)"', text)[1])
  starts = [
    (float(x), float(y)) for x, y in re.findall(r'transform="translate\(([\d.]+) ([\d.]+)\) rotate\(-60\)"', text)
  ]
  assert len(starts) == len(keys)
  for (x, y), key in zip(starts, keys, strict=True):
    length = 7.83 * len(key)
    assert x + length * 0.5 + 3.1 * 0.87 <= width and y - length * 0.87 - 12 * 0.5 >= 0, key
