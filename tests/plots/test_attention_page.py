"""The page of all attention: its numbers, and what a person does with it, in headless Chromium."""

import base64
import json
import re

import numpy as np
import pytest

from attention_zoo.plots.attention_overview import attention_overview
from attention_zoo.plots.attention_page import ROOM, View, attention_page
from attention_zoo.plots.attention_summary import summarize
from attention_zoo.plots.picture import Picture

SOURCE = ["▁The", "▁<script>alert(1)</script>", "▁cat", "s", "</s>"]
TARGET = ["▁Die", "▁Katze", "n", "</s>"]


def weights(L, N, T, S, causal=False, seed=0):
  w = np.random.default_rng(seed).random((L, N, T, S)) ** 4 + 1e-6
  w = np.tril(w) if causal else w
  return (w / w.sum(-1, keepdims=True)).astype(np.float32)


def views():
  cross = weights(2, 3, 4, 5)
  cross[1, 2, 1] = [0, 0, 1, 0, 0]
  self_ = weights(2, 3, 4, 4, causal=True)
  return [
    View("Cross", "One looks at the other.", "Written", "Read", TARGET, SOURCE, cross),
    View("Self", "Each looks back.", "Written", "Before", TARGET, ["<s>", *TARGET[:-1]], self_, 1),
  ]


def data_of(page):
  return json.loads(re.search('<script type="application/json" id="data">(.*?)</script>', page, re.S)[1])["views"]


# What is in the page


def test_weights_are_bytes_of_their_roots():
  cross, self_ = data_of(attention_page(views(), "t"))
  found = (np.frombuffer(base64.b64decode(cross["data"]), np.uint8) / 255.0) ** 2
  np.testing.assert_allclose(found.reshape(2, 3, 4, 5), views()[0].weights_LNTS, atol=0.004)
  found = (np.frombuffer(base64.b64decode(self_["data"]), np.uint8) / 255.0) ** 2
  rows, columns = np.tril_indices(4)
  assert self_["kind"] == "causal"
  np.testing.assert_allclose(found.reshape(2, 3, 10), views()[1].weights_LNTS[:, :, rows, columns], atol=0.004)


def test_markup_in_tokens_stays_in_the_data():
  text = attention_page(views(), "<b>t</b>", facts="</script><img src=x>")
  assert text.count("<script") == 2 and "<img" not in text and "<b>" not in text
  assert data_of(text)[0]["keys"] == SOURCE


def test_large_pages_stay_below_ten_megabytes():
  tokens = [f"▁{i}" for i in range(200)]
  w, c = weights(6, 8, 200, 200), weights(6, 8, 200, 200, causal=True)
  full = [View("a", "", "", "", tokens, tokens, w), View("b", "", "", "", tokens, tokens, w, 0)]
  text = attention_page([*full, View("c", "", "", "", tokens, tokens, c, 1)], "t")
  assert len(text) < 10_000_000 and [view["kind"] for view in data_of(text)] == ["full", "full", "causal"]


def test_what_is_too_much_is_thinned_to_the_largest_weights(monkeypatch):
  monkeypatch.setattr("attention_zoo.plots.attention_page.ROOM", 150)
  view = data_of(attention_page(views(), "t"))[0]
  assert view["kind"] == "top" and view["keep"] == 1 and ROOM > 1_000_000
  data = base64.b64decode(view["data"])
  places = np.frombuffer(data[:48], "<u2").reshape(2, 3, 4)
  np.testing.assert_array_equal(places, views()[0].weights_LNTS.argmax(-1))


@pytest.mark.parametrize("change", [lambda w: w[..., :4], lambda w: -w, lambda w: w * np.nan, lambda w: w[0]])
def test_what_is_no_attention_is_refused(change):
  view = views()[0]
  with pytest.raises(ValueError, match="Cross"):
    attention_page([view._replace(weights_LNTS=change(view.weights_LNTS))], "t")


# The figures of heads


def test_figures_of_known_heads():
  eye, even = np.eye(6), np.full((6, 6), 1 / 6)
  before, first = np.eye(6, k=-1), np.zeros((6, 6))
  before[0, 0] = first[:, 0] = 1
  found = summarize(np.stack([eye, even, before, first])[None], list("abcdef"), lag=0)
  np.testing.assert_allclose(found.entropy, [[0, np.log(6), 0, 0]], atol=1e-6)
  np.testing.assert_allclose(found.distance, [[0, np.abs(np.subtract.outer(range(6), range(6))).mean(), 5 / 6, 2.5]])
  np.testing.assert_allclose(found.near[0, [0, 2, 3]], [1, 1, 2 / 6])
  assert found.words == [["the token itself", "everything alike", "the token before", "“a”"]]
  assert found.key[0, 3] == 0 and found.share[0, 3] == 1


def test_a_query_that_is_ahead_of_its_key():
  """Of a language model: query t is the token to come, key t the one before it."""
  found = summarize(np.eye(5)[None, None], list("abcde"), lag=1)
  assert found.words == [["the token before"]] and found.distance[0, 0] == 1 and found.near[0, 0] == 1


def test_two_texts_are_stretched_to_one_length():
  w = np.zeros((1, 1, 3, 5))
  w[0, 0, [0, 1, 2], [0, 2, 4]] = 1
  found = summarize(w, list("abcde"))
  assert found.distance[0, 0] == 0 and found.near[0, 0] == 1 and found.words == [["the same place"]]


# The picture


def test_the_overview_shows_all_heads_and_one():
  view = views()[0]
  fig = attention_overview(view.weights_LNTS, view.queries, view.keys, layer=1, head=2, title="$t")
  maps = [axes for axes in fig.findobj(type(fig.axes[0])) if axes.images]
  assert len(maps) == 7
  np.testing.assert_array_equal(maps[-1].images[0].get_array(), view.weights_LNTS[1, 2])
  assert Picture(fig)._repr_png_()[:4] == b"\x89PNG"
  with pytest.raises(IndexError):
    attention_overview(view.weights_LNTS, view.queries, view.keys, layer=2)


def test_a_picture_is_written_in_the_format_of_its_name(tmp_path):
  picture = Picture(attention_overview(weights(1, 1, 4, 5), TARGET, SOURCE))
  picture.save(tmp_path / "a.svg")
  assert "<svg" in (tmp_path / "a.svg").read_text() and "inches" in repr(picture)


# What a person does


@pytest.fixture
def page(browser, tmp_path):
  (tmp_path / "page.html").write_text(attention_page(views(), "t", "facts"))
  browser.open(tmp_path / "page.html")
  yield browser
  assert browser.complaints == []


def shown(page, side):
  """[(token, strength 0 .. 1)] of a text."""
  return page.run(
    f"[...document.querySelectorAll('#{side} .tok')].map(x => [x.textContent, +x.style.getPropertyValue('--w')])"
  )


def says(page):
  return page.run("document.getElementById('says').textContent")


def test_it_opens_on_a_word_with_its_weights(page):
  assert page.run("document.querySelector('#queries .on').textContent") == "Katze"
  assert says(page).startswith("“Katze” takes ")
  strengths = [w for _, w in shown(page, "keys")]
  mean = views()[0].weights_LNTS[1, :, 1].mean(0)
  np.testing.assert_allclose(np.square(strengths), mean, atol=0.01)
  assert page.run("document.querySelectorAll('#fan path').length") >= 1


def test_hovering_shows_what_a_token_looks_at_and_leaving_goes_back(page):
  page.hover("#queries .tok", 0)
  np.testing.assert_allclose(
    np.square([w for _, w in shown(page, "keys")]), views()[0].weights_LNTS[1, :, 0].mean(0), atol=0.01
  )
  assert says(page).startswith("“Die” takes ")
  page.hover("#keys .tok", 2)
  np.testing.assert_allclose(
    np.square([w for _, w in shown(page, "queries")]), views()[0].weights_LNTS[1, :, :, 2].mean(0), atol=0.01
  )
  assert says(page).startswith("“cat” is looked at by ")
  page.hover("h1")
  assert says(page).startswith("“Katze” takes ")


def test_a_click_keeps_a_token(page):
  page.click("#queries .tok", 2)
  page.hover("h1")
  assert says(page).startswith("“n” takes ")


def test_another_head_by_mouse(page):
  page.click("#heads button", 7)  # layer 2, head 3
  assert says(page) == "“Katze” takes 100 % from “cat”."
  assert page.run("document.getElementById('mapName').textContent") == "Layer 2, head 3, as a whole"
  page.click("#every button", 0)
  assert page.run("document.getElementById('mapName').textContent").startswith("Layer 2, head 1")


def test_keys_move_through_tokens_heads_and_layers(page):
  page.click("#queries .tok", 0)
  page.hover("h1")
  for key in ("ArrowRight", "ArrowRight"):
    page.key(key)
  assert page.run("document.activeElement.textContent") == "n" and says(page).startswith("“n” takes ")
  page.key("Home")
  page.key("3")
  page.key("ArrowUp", shift=True)
  assert page.run("document.getElementById('mapName').textContent") == "Layer 1, head 3, as a whole"
  np.testing.assert_allclose(
    np.square([w for _, w in shown(page, "keys")]), views()[0].weights_LNTS[0, 2, 0], atol=0.01
  )
  page.key("ArrowDown")
  assert page.run("document.activeElement.closest('.text').id") == "keys"
  page.run("document.querySelector('#heads [aria-checked=true]').focus()")
  page.key("ArrowLeft")
  assert page.run("document.getElementById('mapName').textContent").startswith("Layer 1, head 2")
  assert page.run("document.activeElement.getAttribute('aria-label')").startswith("layer 1, head 2")


def test_another_kind_of_attention(page):
  page.click("#tabs button", 1)
  assert [token for token, _ in shown(page, "keys")] == ["<s>", "Die", "Katze", "n"]
  page.hover("#queries .tok", 1)
  strengths = np.square([w for _, w in shown(page, "keys")])
  np.testing.assert_allclose(strengths, views()[1].weights_LNTS[1, :, 1].mean(0), atol=0.01)
  assert strengths[2] == strengths[3] == 0  # what is not written yet


def test_markup_is_text(page):
  assert ["<script>alert(1)</script>"] in [[token] for token, _ in shown(page, "keys")]
  assert page.run("document.scripts.length") == 2


def test_the_map_tells_a_cell(page):
  page.hover("#map")
  assert re.fullmatch("“.+” takes [<0-9]+ % from “.+”.", says(page))


def test_thinned_weights_are_read_back(browser, tmp_path, monkeypatch):
  monkeypatch.setattr("attention_zoo.plots.attention_page.ROOM", 150)
  (tmp_path / "thin.html").write_text(attention_page(views(), "t"))
  browser.open(tmp_path / "thin.html")
  assert "Only the 1 largest" in browser.run("document.getElementById('note').textContent")
  browser.click("#heads button", 7)
  assert says(browser) == "“Katze” takes 100 % from “cat”." and browser.complaints == []


@pytest.mark.parametrize("width", [375, 800, 1400])
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("count", [5, 200])
def test_nothing_is_wider_than_the_screen(browser, tmp_path, width, dark, count):
  tokens = [f"{'▁' * (i % 9 == 0)}word{i}" for i in range(count)]  # and words of nine pieces
  (tmp_path / "page.html").write_text(
    attention_page([View("a", "b", "c", "d", tokens, tokens, weights(2, 8, count, count))], "t")
  )
  browser.open(tmp_path / "page.html", width=width, dark=dark)
  assert browser.run("document.documentElement.scrollWidth") <= width
  ground = browser.run("getComputedStyle(document.body).backgroundColor")
  assert ground == ("rgb(21, 24, 28)" if dark else "rgb(255, 255, 255)") and browser.complaints == []
