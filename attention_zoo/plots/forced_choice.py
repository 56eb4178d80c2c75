"""A page that shows pairs of images, of which one is real, and asks a person which: the two-alternative forced choice.

The page needs no network. Its images lie in it in one random order, the pairs in another; the side of the real one is
the parity of the ones in the binary digits of a random number, so that reading the data does not give it away.
"""

import base64
import io
import json
import pathlib
from typing import NamedTuple

import numpy as np

from attention_zoo.plots import theme

_HERE = pathlib.Path(__file__).parent


class Pair(NamedTuple):
  """system: whose image it is, a number. image: the number of the image. real, drawn: uint8 [Y, X, 3]."""

  system: int
  image: int
  real: np.ndarray
  drawn: np.ndarray


def forced_choice_page(systems, pairs: list[Pair], *, seconds: float, seed: int, command: str = "") -> str:
  """The document. systems: (name, figure that is printed elsewhere or "") of each. seconds: for how long a pair is
  seen. seed: the order of the pairs, and which side is real, are functions of it."""
  rng = np.random.default_rng(seed)
  place = rng.permutation(2 * len(pairs)).tolist()  # of pair i's real and drawn image
  images, trials = [""] * len(place), []
  for i in rng.permutation(len(pairs)).tolist():
    pair, real, drawn = pairs[i], place[2 * i], place[2 * i + 1]
    images[real], images[drawn] = _png(pair.real), _png(pair.drawn)
    left, code = bool(rng.integers(2)), int(rng.integers(2**31))
    code ^= (code.bit_count() & 1) ^ left
    sides = (real, drawn) if left else (drawn, real)
    trials.append([pair.system, pair.image, *sides, code])
  systems = [{"name": name, "printed": printed} for name, printed in systems]
  data = {"systems": systems, "images": images, "trials": trials, "seconds": seconds, "seed": seed}
  text = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
  css, script = ((_HERE / f"forced_choice.{kind}").read_text("utf-8") for kind in ("css", "js"))
  body = (_HERE / "forced_choice.html").read_text("utf-8")
  body += f"<pre>{theme.escape(command)}</pre>" if command else ""
  body += f'<script type="application/json" id="data">{text}</script>'
  return theme.page("Which one is real?", body, css, script)


def _png(image) -> str:
  from PIL import Image

  buffer = io.BytesIO()
  Image.fromarray(np.asarray(image, np.uint8)).save(buffer, format="PNG")
  return base64.b64encode(buffer.getvalue()).decode()
