"""Attention over pixels: non-local blocks, SAGAN's module, and the non-local means filter they descend from.

Feature maps are channels-last, [B, space..., D] with one, two or three axes of space (a sound, an image, a
video). They are flattened to T = S positions; Y and X are the rows and columns of an image.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from attention_zoo.ops import shapes
from attention_zoo.ops.dot_product import attend, dot, dot_product_attention


def gaussian(x_BTD, y_BSD, v_BSH):
  """out_i = sum_j softmax_j(x_i y_j^T) v_j (Wang et al. 2018, eq. 2).

  Cost: time O(T S (D + H)), memory O(T S).
  """
  return _unscaled_attention(x_BTD, y_BSD, v_BSH)


def embedded_gaussian(x_BTD, y_BSD, v_BSH, *, theta_DK, phi_DK):
  """out_i = sum_j softmax_j((x_i theta) (y_j phi)^T) v_j (Wang et al. 2018, eq. 3): no 1 / sqrt(d_k).

  Cost: time O(T S (K + H)), memory O(T S).
  """
  shapes.check(x_BTD=x_BTD, y_BSD=y_BSD, theta_DK=theta_DK, phi_DK=phi_DK)
  return _unscaled_attention(_project(x_BTD, theta_DK), _project(y_BSD, phi_DK), v_BSH)


def dot_product(x_BTD, y_BSD, v_BSH, *, theta_DK, phi_DK):
  """out_i = 1 / S sum_j ((x_i theta) (y_j phi)^T) v_j (Wang et al. 2018, eq. 4).

  There is no softmax, so the product associates the other way round: (x theta) ((y phi)^T v) / S.
  Cost: time O((T + S) K H), memory O(K H): linear in the positions.
  """
  shapes.check(x_BTD=x_BTD, y_BSD=y_BSD, v_BSH=v_BSH, theta_DK=theta_DK, phi_DK=phi_DK)
  # Divided before the sum, which would overflow a short float in a large image.
  keys_BSK = _project(y_BSD, phi_DK) / max(1, y_BSD.shape[1])
  summary_BKH = jnp.einsum("BSK,BSH->BKH", keys_BSK, v_BSH)
  return jnp.einsum("BTK,BKH->BTH", _project(x_BTD, theta_DK), summary_BKH)


def concatenation(x_BTD, y_BSD, v_BSH, *, theta_DK, phi_DK, query_weight_K, key_weight_K):
  """out_i = 1 / S sum_j relu(w [x_i theta, y_j phi]^T) v_j (Wang et al. 2018, eq. 6).

  query_weight_K, key_weight_K: the two halves of w; the concatenated pairs are never made.
  Cost: time O(T S H), memory O(T S).
  """
  shapes.check(
    x_BTD=x_BTD, y_BSD=y_BSD, v_BSH=v_BSH, theta_DK=theta_DK, phi_DK=phi_DK,
    query_weight_K=query_weight_K, key_weight_K=key_weight_K,
  )  # fmt: skip
  query_BT = jnp.einsum("BTK,K->BT", _project(x_BTD, theta_DK), query_weight_K)
  key_BS = jnp.einsum("BSK,K->BS", _project(y_BSD, phi_DK), key_weight_K)
  pairs_BTS = jax.nn.relu(query_BT[:, :, None] + key_BS[:, None, :]) / max(1, y_BSD.shape[1])
  return jnp.einsum("BTS,BSH->BTH", pairs_BTS, v_BSH)


def nonlocal_block(x, form, g_DH, z_HD, *, pool=1):
  """Non-local block: x + form(x, x', x' g) z (Wang et al. 2018, eq. 1 and 7).

  x: [B, space..., D]. form: one of the four forms above, its parameters bound with functools.partial. g_DH,
  z_HD: 1x1 convolutions into and out of the values (z starts at 0, then the block is the identity). x' is x,
  or x max-pooled by `pool` (section 3.3), which makes as many times fewer keys: one number for all axes of space,
  or one for each. The paper pools a video in space and not in time: pool=(1, 2, 2). Returns the shape of x.
  Raises ValueError for an argument that does not fit.

  Cost: the form's, with T = n positions and S = n / product of the pools keys, and O(n D H) for g and z.
  """
  if not 3 <= x.ndim <= 5:
    raise ValueError(f"x has shape {x.shape}, wanted [B, space..., D] with one to three axes of space")
  space = x.shape[1:-1]
  pools = tuple(pool) if isinstance(pool, tuple | list) else (pool,) * len(space)
  if len(pools) != len(space) or any(p < 1 or 1 < p > size for p, size in zip(pools, space, strict=True)):
    raise ValueError(
      f"pool {pool} does not fit x of shape {x.shape}: one number, or one for each axis of space, "
      "which must hold it once"
    )
  x_BTD, y_BSD = _flatten(x), _flatten(_max_pool(x, pools))
  shapes.check(x_BTD=x_BTD, g_DH=g_DH, z_HD=z_HD)
  out_BTH = form(x_BTD, y_BSD, _project(y_BSD, g_DH))
  return x + jnp.einsum("BTH,HD->BTD", out_BTH, z_HD).reshape(x.shape)


def sagan_attention(x_BYXD, f_DK, g_DK, h_DH, v_HD, gamma):
  """SAGAN's module: x + gamma sum_i softmax_i((x_i f) (x_j g)^T) (x_i h) v (Zhang et al. 2019, eq. 1-3).

  f_DK, g_DK, h_DH, v_HD: the 1x1 convolutions to keys, queries and values, and from values (K = H = D / 8 in
  the paper). gamma: a scalar that is learned and starts at 0, where the module is the identity. Returns BYXD.
  Raises ValueError for an argument that does not fit.

  Cost, with n = Y X positions: time O(n^2 (K + H)), memory O(n^2).
  """
  shapes.check(x_BYXD=x_BYXD, f_DK=f_DK, g_DK=g_DK, h_DH=h_DH, v_HD=v_HD)
  if jnp.shape(gamma) != ():
    raise ValueError(f"gamma has shape {jnp.shape(gamma)}, wanted a scalar: ()")
  x_BTD = _flatten(x_BYXD)
  out_BTH = embedded_gaussian(x_BTD, x_BTD, _project(x_BTD, h_DH), theta_DK=g_DK, phi_DK=f_DK)
  out_BTD = jnp.einsum("BTH,HD->BTD", out_BTH, v_HD)
  return x_BYXD + jnp.asarray(gamma, x_BYXD.dtype) * out_BTD.reshape(x_BYXD.shape)


def nonlocal_means(image_BYXD, *, strength, patch=7, search=None, sigma=None):
  """Non-local means filter (Buades, Coll and Morel 2005, section 3), as attention with a fixed similarity.

    u_i = sum_j softmax_j(-|N_i - N_j|^2 / strength^2) v_j

  N_i: the patch x patch neighbourhood of pixel i, mirrored at the border. The squared distance is an average
  over the patch and a sum over the channels; with sigma the average is weighted by a Gaussian of that
  deviation. search: odd width of the square of pixels j, all of them if None. |N_i|^2 is the same for every
  j, so that the logits are 2 N_i N_j^T - |N_j|^2: a dot product and a bias of the keys. Returns BYXD. Raises
  ValueError for an argument that does not fit.

  Cost, with n = Y X pixels and n' <= search X compared with each row at a time: time O(n n' D patch^2),
  memory O(X n' + n D patch^2).
  """
  sizes = shapes.check(image_BYXD=image_BYXD)
  Y, X = sizes["Y"], sizes["X"]
  for name, width in (("patch", patch), ("search", 1 if search is None else search)):
    if width < 1 or width % 2 == 0:
      raise ValueError(f"{name} must be odd and at least 1, got {width}")
  if patch // 2 > min(Y, X) and image_BYXD.size:
    raise ValueError(f"patch {patch} is too wide for image_BYXD of shape {image_BYXD.shape}")
  if not image_BYXD.size:
    return image_BYXD

  # A constant drops out of the distances, but would cost digits in the squares that they are made of.
  centred_BYXD = image_BYXD - image_BYXD.mean((1, 2), keepdims=True)
  patches_BYXK = _patches(centred_BYXD, patch, sigma) / strength
  reach = max(Y, X) if search is None else search // 2
  rows = min(Y, 2 * reach + 1)

  def filter_row(y):
    first = jnp.clip(y - reach, 0, Y - rows)
    keys_BSK, values_BSH = (
      _flatten(jax.lax.dynamic_slice_in_dim(a, first, rows, 1)) for a in (patches_BYXK, image_BYXD)
    )
    near_Y = jnp.abs(first + jnp.arange(rows) - y) <= reach
    near_TX = jnp.abs(jnp.arange(X)[:, None] - jnp.arange(X)[None]) <= reach
    mask_TS = (near_TX[:, None, :] & near_Y[None, :, None]).reshape(X, rows * X)
    queries_BTK = jax.lax.dynamic_index_in_dim(patches_BYXK, y, 1, keepdims=False)
    bias_BS = -jnp.sum(keys_BSK**2, axis=-1)
    logits_BNTS = dot(2 * _one_head(queries_BTK), _one_head(keys_BSK)) + bias_BS[:, None, None]
    return attend(logits_BNTS, _one_head(values_BSH), mask=mask_TS[None, None])[:, :, 0]

  return jax.lax.map(filter_row, jnp.arange(Y)).swapaxes(0, 1)


def _unscaled_attention(q_BTK, k_BSK, v_BSH):
  q_BTK = q_BTK * q_BTK.shape[-1] ** 0.5
  return dot_product_attention(*map(_one_head, (q_BTK, k_BSK, v_BSH)))[:, :, 0]


def _one_head(x_BTK):
  return x_BTK[:, :, None]


def _flatten(x):
  return x.reshape(x.shape[0], math.prod(x.shape[1:-1]), x.shape[-1])


def _project(x_BTD, kernel_DK):
  """A 1x1 convolution."""
  return jnp.einsum("BTD,DK->BTK", x_BTD, kernel_DK)


def _max_pool(x, pools):
  if set(pools) == {1}:
    return x
  window = (1, *pools, 1)
  return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, window, "VALID")


def _patches(image_BYXD, patch, sigma):
  """The neighbourhood of every pixel, weighted so that squared distances are the filter's. Returns BYXK."""
  radius = patch // 2
  offsets = np.arange(patch) - radius
  weights = np.ones(patch) if sigma is None else np.exp(-(offsets**2) / (2 * sigma**2))
  weights = np.sqrt(np.outer(weights, weights) / np.outer(weights, weights).sum())
  Y, X = image_BYXD.shape[1:3]
  mirrored = jnp.pad(image_BYXD, ((0, 0), (radius, radius), (radius, radius), (0, 0)), "symmetric")
  shifted = (float(weights[y, x]) * mirrored[:, y : y + Y, x : x + X] for y, x in np.ndindex(patch, patch))
  return jnp.concatenate(list(shifted), axis=-1)
