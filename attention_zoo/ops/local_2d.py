"""Image Transformer's local 2D attention: tiles of queries, each with the pixels around it.

Parmar et al. 2018, section 4.1. Images are q_BYXNK, tile = (rows, columns) of queries computed together,
flange = (rows, columns) of memory around. Sizes that are no multiple of the tile are padded inside. Time and
memory are linear in the number of pixels.

The masked form generates in *block-raster order*: tile after tile in raster order, and in raster order inside
a tile. A query sees what comes no later in that order in its own tile, in the flange above (with its
corners) and in the flange left of it.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from attention_zoo.ops import cache as cache_lib
from attention_zoo.ops import shapes
from attention_zoo.ops.dot_product import dot_product_attention
from attention_zoo.ops.local import with_halo
from attention_zoo.ops.variant import Variant


def block_raster_order(Y, X, tile):
  """The raster indices of a Y x X image in block-raster order, and the inverse permutation, NumPy int32 both.

  flat[order] is in block-raster order; in_block_raster[inverse] is back in raster order. Tiles cut off by the
  right or lower edge keep their raster order inside. Cost: O(Y X log(Y X)).
  """
  y, x = np.divmod(np.arange(Y * X), X) if Y * X else (np.zeros(0, int), np.zeros(0, int))
  order = np.lexsort((x, y, x // tile[1], y // tile[0]))
  return order.astype(np.int32), np.argsort(order).astype(np.int32)


def local_attention_2d(q_BYXNK, k_BYXNK, v_BYXNH, *, tile, flange, dropout=None):
  """A tile of queries sees itself and the flange on all four sides. Returns BYXNH.

  Cost: time O(Y X M N (K + H)), memory O(Y X M N), M = (tile[0] + 2 flange[0]) (tile[1] + 2 flange[1]).
  """
  return _tiled(
    q_BYXNK,
    k_BYXNK,
    v_BYXNH,
    lambda query, key: True,
    tile=tile,
    flange=flange,
    below=flange[0],
    dropout=dropout,
  )


def masked_local_attention_2d(q_BYXNK, k_BYXNK, v_BYXNH, *, tile, flange, dropout=None):
  """`local_attention_2d`, causal in block-raster order, each pixel seeing itself. Returns BYXNH.

  Cost: time O(Y X M N (K + H)), memory O(Y X M N), M = (tile[0] + flange[0]) (tile[1] + 2 flange[1]).
  """

  def visible(query, key):
    return _not_later(query, key, tile)

  return _tiled(q_BYXNK, k_BYXNK, v_BYXNH, visible, tile=tile, flange=flange, below=0, dropout=dropout)


def masked_local_step_2d(q_B1NK, k_BYXNK, v_BYXNH, *, position, tile, flange):
  """One pixel of `masked_local_attention_2d`, position = (y, x) (int32, may be traced).

  k_BYXNK, v_BYXNH: caches in raster layout, this pixel already written; later ones are not looked at.
  Returns out_B1NH. Cost: time O(M N (K + H)), whatever the size of the image.
  """
  shapes.check(q_BTNK=q_B1NK, k_BYXNK=k_BYXNK, v_BYXNH=v_BYXNH)
  spans = []
  for axis, size in enumerate((tile[0] + flange[0], tile[1] + 2 * flange[1])):
    size = min(size, k_BYXNK.shape[axis + 1])
    first = position[axis] // tile[axis] * tile[axis] - flange[axis]
    spans.append((jnp.clip(first, 0, k_BYXNK.shape[axis + 1] - size), size))
  (y, rows), (x, columns) = spans

  def cut(cache_BYXNK):
    region = jax.lax.dynamic_slice_in_dim(
      jax.lax.dynamic_slice_in_dim(cache_BYXNK, y, rows, 1), x, columns, 2
    )
    return region.reshape(region.shape[0], rows * columns, *region.shape[3:])

  key_y, key_x = (y + jnp.arange(rows))[:, None], (x + jnp.arange(columns))[None, :]
  visible = _in_flange(position, (key_y, key_x), tile, flange) & _not_later(position, (key_y, key_x), tile)
  return dot_product_attention(q_B1NK, cut(k_BYXNK), cut(v_BYXNH), mask=visible.reshape(1, 1, 1, -1))


def _not_later(query, key, tile):
  """Whether key comes no later than query in block-raster order; both are pairs (y, x) of arrays."""

  def before(pairs, otherwise):
    for t, s in reversed(pairs):
      otherwise = (s < t) | ((s == t) & otherwise)
    return otherwise

  (t_y, t_x), (s_y, s_x) = query, key
  tiles = [(t_y // tile[0], s_y // tile[0]), (t_x // tile[1], s_x // tile[1])]
  return before([*tiles, (t_y, s_y), (t_x, s_x)], True)


def _in_flange(query, key, tile, flange):
  """Whether key lies in the rows and columns of query's tile or its flange."""
  inside = True
  for t, s, size, margin in zip(query, key, tile, flange, strict=True):
    start = t // size * size
    inside &= (s >= start - margin) & (s < start + size + margin)
  return inside


def _tiled(q_BYXNK, k_BYXNK, v_BYXNH, visible, *, tile, flange, below, dropout):
  """Dense attention on tiles as a batch. visible(query, key): which positions (y, x) see each other."""
  sizes = shapes.check(q_BYXNK=q_BYXNK, k_BYXNK=k_BYXNK, v_BYXNH=v_BYXNH)
  B, Y, X = sizes["B"], sizes["Y"], sizes["X"]
  if min(*tile, flange[0] + 1, flange[1] + 1) < 1:
    raise ValueError(f"tile is {tile} and flange {flange}, wanted at least (1, 1) and (0, 0)")
  rows, columns = -(-Y // tile[0]), -(-X // tile[1])

  def cut(x_BYXNK, above, below, beside):
    halo = with_halo(with_halo(x_BYXNK, tile[1], beside, beside, axis=2), tile[0], above, below, axis=1)
    tiles = jnp.moveaxis(halo, 3, 2)
    return tiles.reshape(B * rows * columns, tiles.shape[3] * tiles.shape[4], *tiles.shape[5:])

  def positions(blocks, width, before, after):
    """Positions on one axis by block: queries' [blocks, width], keys' [blocks, before + width + after]."""
    start = jnp.arange(blocks)[:, None] * width
    return start + jnp.arange(width)[None], start + jnp.arange(before + width + after)[None] - before

  # Six axes: tile row, tile column; query row and column in the tile; key row and column in its memory.
  t_y, s_y = positions(rows, tile[0], flange[0], below)
  t_x, s_x = positions(columns, tile[1], flange[1], flange[1])
  query = t_y[:, None, :, None, None, None], t_x[None, :, None, :, None, None]
  key = s_y[:, None, None, None, :, None], s_x[None, :, None, None, None, :]
  seen = visible(query, key) & (key[0] >= 0) & (key[0] < Y) & (key[1] >= 0) & (key[1] < X)
  T, S = tile[0] * tile[1], s_y.shape[1] * s_x.shape[1]
  seen = jnp.broadcast_to(seen, (B, rows, columns, *tile, s_y.shape[1], s_x.shape[1]))
  out = dot_product_attention(
    cut(q_BYXNK, 0, 0, 0),
    cut(k_BYXNK, flange[0], below, flange[1]),
    cut(v_BYXNH, flange[0], below, flange[1]),
    mask=seen.reshape(B * rows * columns, 1, T, S),
    dropout=dropout,
  )
  tiles = out.reshape(B, rows, columns, *tile, *out.shape[2:])
  image = jnp.moveaxis(tiles, 2, 3).reshape(B, rows * tile[0], columns * tile[1], *out.shape[2:])
  return image[:, :Y, :X]


# For layers of image models, and not in VARIANTS: rows of text have no columns


def local_2d(sizes, *, columns: int, tile: tuple, flange: tuple):
  """Image Transformer's local 2D: the positions are those of an image of so many columns in block-raster order.

  tile, flange: (rows, columns); tiles must divide the columns, and the image whole must be tiles, or else the positions
  are other pixels. It must be causal. Cost: `masked_local_attention_2d`'s.
  """
  if not sizes.causal:
    raise ValueError("local_2d is causal: in an encoder choose another attention")
  for name, value, low in (("tile", tile, 1), ("flange", flange, 0)):
    if len(value) != 2 or any(type(size) is not int or size < low for size in value):
      raise ValueError(f"local_2d({name}=..) must be two whole numbers from {low}, not {value!r}")
  if columns < 1 or columns % tile[1]:
    raise ValueError(f"local_2d: {columns} columns are no multiple of the tile's {tile[1]}")
  band = tile[0] * columns  # positions of a row of tiles

  def swapped(x, shape):
    """[B, bands, a, b, columns of a tile, ..] with a and b swapped, as [B, *shape, ..]."""
    return jnp.swapaxes(x, 2, 3).reshape(x.shape[0], *shape, *x.shape[5:])

  def image(x_BTNK):
    bands = -(-x_BTNK.shape[1] // band)
    x = jnp.pad(x_BTNK, ((0, 0), (0, bands * band - x_BTNK.shape[1])) + ((0, 0),) * (x_BTNK.ndim - 2))
    x = x.reshape(x.shape[0], bands, columns // tile[1], *tile, *x.shape[2:])
    return swapped(x, (bands * tile[0], columns))

  def attend(p, q_BTNK, k_BTNK, v_BTNH, *, segments_BT=None, mask=None, dropout=None):
    images = map(image, (q_BTNK, k_BTNK, v_BTNH))
    out = masked_local_attention_2d(*images, tile=tile, flange=flange, dropout=dropout)
    bands = out.shape[1] // tile[0]
    out = out.reshape(out.shape[0], bands, tile[0], columns // tile[1], tile[1], *out.shape[3:])
    return swapped(out, (bands * band,))[:, : q_BTNK.shape[1]]

  def place(t):
    first, t = divmod(t, band)
    number, t = divmod(t, tile[0] * tile[1])
    y, x = divmod(t, tile[1])
    return first * tile[0] + y, number * tile[1] + x

  def position(y, x):
    inside = y % tile[0] * tile[1] + x % tile[1]
    return y // tile[0] * band + x // tile[1] * (tile[0] * tile[1]) + inside

  def step(p, q_BJTNK, k_BJTNK, v_BJTNH, t, cache, ancestry_BJZ):
    cache = cache_lib.write(cache, (k_BJTNK, v_BJTNH), t)
    J, T = q_BJTNK.shape[1:3]

    def one(q_BNK, index):
      query = place(index)
      y, x = (
        (at // size * size - margin) + jnp.arange(size + margin * sides)
        for at, size, margin, sides in zip(query, tile, flange, (1, 2), strict=True)
      )
      y, x = y[:, None], x[None]
      seen = _not_later(query, (y, x), tile) & (y >= 0) & (x >= 0) & (x < columns)
      k_BSNK, v_BSNH = (cache_lib.own(part, ancestry_BJZ, position(y, x).ravel()) for part in cache)
      return dot_product_attention(q_BNK[:, None], k_BSNK, v_BSNH, mask=seen.reshape(1, 1, 1, -1))[:, 0]

    out_BTNH = jax.vmap(one, (1, 0), 1)(q_BJTNK.reshape(-1, *q_BJTNK.shape[2:]), t + jnp.arange(T))
    return out_BTNH.reshape(-1, J, *out_BTNH.shape[1:]), cache

  return Variant(attend, functools.partial(cache_lib.empty, sizes), step, packs=False)
