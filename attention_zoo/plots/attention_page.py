"""All attention of one text or pair of texts as one HTML page, to be explored by mouse, touch and keyboard.

The page needs no network. What it shows lies in it as JSON, and its script makes text of tokens and nothing else of
them. A weight is one byte, 255 times its square root: that is how dark it is drawn, and small ones stay apart.
Weights that would take more than `ROOM` bytes are thinned to the largest of each row, which the page says.

Letters: L layers, N heads, T queries, S keys, K weights kept of a row.
"""

import base64
import json
import pathlib
from typing import NamedTuple

import numpy as np

from attention_zoo.plots import theme
from attention_zoo.plots.attention_summary import summarize

ROOM = 7_000_000  # bytes of weights, before base64 makes four of three
_HERE = pathlib.Path(__file__).parent


class View(NamedTuple):
  """One kind of attention. name: on its tab. note: who looks at whom, a sentence. queries_name, keys_name: headings.

  queries, keys: tokens. weights_LNTS: rows sum to 1, or less; None where there are none to show.
  lag: as in `attention_summary.summarize`.
  """

  name: str
  note: str
  queries_name: str
  keys_name: str
  queries: list[str]
  keys: list[str]
  weights_LNTS: np.ndarray | None
  lag: int | None = None


def attention_page(views: list[View], title: str, facts: str = "") -> str:
  """The document. title: of the window; facts: a line about model and text.

  Raises ValueError where weights do not fit the tokens, are negative or not finite.
  """
  for view in views:
    _check(view)
  if not views:
    raise ValueError("There is no attention to show.")
  needed = [_dense_size(view) for view in views]
  keep = None
  if sum(needed) > ROOM:
    rows = sum(L * N * T for L, N, T, _ in (view.weights_LNTS.shape for view in views))
    keep = max(ROOM // (3 * rows), 1)
  data = {"views": [_packed(view, keep) for view in views], "facts": facts}
  text = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
  css, script = ((_HERE / f"attention_page.{kind}").read_text("utf-8") for kind in ("css", "js"))
  body = (_HERE / "attention_page.html").read_text("utf-8")
  return theme.page(title, f'{body}<script type="application/json" id="data">{text}</script>', css, script)


def _check(view):
  weights, shape = view.weights_LNTS, (len(view.queries), len(view.keys))
  if weights.ndim != 4 or weights.shape[2:] != shape or not weights.size:
    raise ValueError(
      f"{view.name}: weights of shape {weights.shape} do not fit {shape[0]} query, {shape[1]} key tokens."
    )
  if not all(np.isfinite(layer).all() and (layer >= 0).all() for layer in weights):
    raise ValueError(f"{view.name}: some weights are negative or not finite.")


def _causal(view):
  T, S = view.weights_LNTS.shape[2:]
  return T == S > 1 and not any(np.triu(weights_NTS, 1).any() for weights_NTS in view.weights_LNTS)


def _dense_size(view):
  L, N, T, S = view.weights_LNTS.shape
  return L * N * (T * (T + 1) // 2 if _causal(view) else T * S)


def _packed(view, keep) -> dict:
  """A view as JSON. kind "full": all weights; "causal": of row t the first t + 1; "top": of each row the `keep`
  largest, the places of all (two bytes each, the low one first) before the weights of all."""
  weights = np.asarray(view.weights_LNTS, np.float32)
  L, N, T, S = weights.shape
  kind = "top" if keep is not None and keep < S else "causal" if _causal(view) else "full"
  layers = [_bytes(weights_NTS, kind, keep) for weights_NTS in weights]  # one at a time: they may be gigabytes
  data = b"".join(part for parts in zip(*layers, strict=True) for part in parts)
  heads = summarize(weights, view.keys, lag=view.lag)
  figures = np.stack([heads.entropy, heads.distance, heads.near, heads.key, heads.share], -1).reshape(L * N, 5)
  words = [word for layer in heads.words for word in layer]
  return {
    "name": view.name,
    "note": view.note,
    "queriesName": view.queries_name,
    "keysName": view.keys_name,
    "queries": list(view.queries),
    "keys": list(view.keys),
    "layers": L,
    "heads": N,
    "kind": kind,
    "keep": keep,
    "data": base64.b64encode(data).decode(),
    "figures": [[*map(lambda x: round(float(x), 3), row), word] for row, word in zip(figures, words, strict=True)],
  }


def _bytes(weights_NTS, kind, keep) -> tuple[bytes, ...]:
  """Those of one layer, for `_packed`: what stands behind one another for all layers."""
  bytes_NTS = np.rint(np.sqrt(np.minimum(weights_NTS, 1)) * 255).astype(np.uint8)
  if kind == "top":
    places = np.sort(np.argsort(-weights_NTS, axis=-1, kind="stable")[..., :keep], axis=-1)
    return places.astype("<u2").tobytes(), np.take_along_axis(bytes_NTS, places, -1).tobytes()
  if kind == "causal":
    rows, columns = np.tril_indices(bytes_NTS.shape[1])
    return (bytes_NTS[:, rows, columns].tobytes(),)
  return (bytes_NTS.tobytes(),)
