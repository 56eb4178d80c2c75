"""Grids of small images as PNG files, enlarged so that each pixel can be seen."""

import base64
import io
import math

import numpy as np

_GAP = 2  # pixels between images, before they are enlarged
_WIDE = 640  # pixels of a grid, about


def grid(images_BYX3, columns=None) -> np.ndarray:
  """uint8 [.., .., 3]: the images row by row on a grey ground. columns: about as many as rows by default."""
  images = np.asarray(images_BYX3, np.uint8)
  count, Y, X = images.shape[:3]
  columns = columns or max(math.ceil(math.sqrt(count)), 1)
  rows = -(-count // columns)
  whole = np.full((rows * (Y + _GAP) + _GAP, columns * (X + _GAP) + _GAP, 3), 128, np.uint8)
  for i, image in enumerate(images):
    y, x = (_GAP + at * (size + _GAP) for at, size in zip(divmod(i, columns), (Y, X), strict=True))
    whole[y : y + Y, x : x + X] = image
  return whole


def png(images_BYX3, columns=None) -> bytes:
  """The grid as a PNG file."""
  from PIL import Image

  whole = grid(images_BYX3, columns)
  scale = max(_WIDE // whole.shape[1], 1)
  buffer = io.BytesIO()
  Image.fromarray(whole.repeat(scale, 0).repeat(scale, 1)).save(buffer, format="PNG")
  return buffer.getvalue()


def html(content: bytes, label: str) -> str:
  """An <img> that holds a PNG file. label: what it shows, escaped by the caller."""
  code = base64.b64encode(content).decode()
  return f'<img alt="{label}" style="image-rendering:pixelated;max-width:100%" src="data:image/png;base64,{code}">'
