"""Attention over pixels against loops over pairs of pixels."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_zoo.ops import dot_product, image
from tests.ops.against import (
  as_float32,
  assert_bfloat16,
  assert_close,
  assert_matches,
  assert_same_on_eight_devices,
  normal,
  softmax,
)

B, D, K, H = 2, 3, 4, 5
PARAMETERS = {"gaussian": 0, "embedded_gaussian": 2, "dot_product": 2, "concatenation": 4}
NAMES = ("theta_DK", "phi_DK", "query_weight_K", "key_weight_K")
SHAPES = ((D, K), (D, K), (K,), (K,))


def block(form, x, g, z, *parameters, pool=1):
  bound = dict(zip(NAMES, parameters, strict=False))
  return image.nonlocal_block(x, partial(getattr(image, form), **bound), g, z, pool=pool)


def arguments(form, space=(2, 3), batch=B):
  return normal(0, (batch, *space, D), (D, H), (H, D), *SHAPES[: PARAMETERS[form]])


def oracle(form, x, g, z, *parameters, pool=1):
  space, axes = x.shape[1:-1], range(x.ndim - 2)
  out = x.copy()
  pools = pool if isinstance(pool, tuple) else (pool,) * len(space)
  for n in range(x.shape[0]):
    keys = []
    for corner in np.ndindex(*(size // p for size, p in zip(space, pools, strict=True))):
      keys.append(x[n][tuple(slice(c * p, c * p + p) for c, p in zip(corner, pools, strict=True))].max(tuple(axes)))
    for i in np.ndindex(*space):
      f = np.zeros(len(keys))
      for j, y in enumerate(keys):
        if form == "gaussian":
          f[j] = np.exp(x[n][i] @ y)
          continue
        theta, phi = x[n][i] @ parameters[0], y @ parameters[1]
        if form == "embedded_gaussian":
          f[j] = np.exp(theta @ phi)
        elif form == "dot_product":
          f[j] = theta @ phi
        else:
          f[j] = max(0, np.concatenate(parameters[2:]) @ np.concatenate([theta, phi]))
      normaliser = f.sum() if "gaussian" in form else len(keys)
      out[n][i] = x[n][i] + sum(f[j] * (y @ g) for j, y in enumerate(keys)) / normaliser @ z
  return out


FORMS = pytest.mark.parametrize("form", PARAMETERS)


@FORMS
@pytest.mark.parametrize(
  "space, pool",
  [((2, 3), 1), ((2, 3, 2), 1), ((4, 5), 2), ((2, 2, 3), (1, 2, 2))],
  ids=["2-D", "3-D", "pooled", "pooled in space, not in time"],
)
def test_nonlocal_block_is_the_sum_over_pairs(form, space, pool):
  arrays = arguments(form, space)
  assert_matches(partial(block, form, pool=pool), partial(oracle, form, pool=pool), *arrays)


@FORMS
def test_nonlocal_block_starts_as_the_identity(form):
  x, g, z, *parameters = as_float32(arguments(form))
  assert (block(form, x, g, jnp.zeros_like(z), *parameters) == x).all()


@FORMS
def test_pixels_may_be_permuted_unless_they_are_pooled(form):
  x, *rest = as_float32(arguments(form, (4, 4)))
  permutation = np.random.default_rng(1).permutation(16)
  shuffle = lambda x: x.reshape(B, 16, D)[:, permutation].reshape(x.shape)
  assert_close(block(form, shuffle(x), *rest), shuffle(block(form, x, *rest)))
  pooled = block(form, shuffle(x), *rest, pool=2) - shuffle(block(form, x, *rest, pool=2))
  assert np.abs(pooled).max() > 1e-3


def test_dot_product_form_never_makes_the_pairs():
  x, *rest = as_float32(arguments("dot_product", (32, 32), batch=1))
  memory = jax.jit(partial(block, "dot_product")).lower(x, *rest).compile().memory_analysis()
  assert memory.temp_size_in_bytes < 4 * 1024**2 / 8


def sagan_oracle(x, f, g, h, v, gamma):
  out = np.zeros_like(x)
  for n in range(x.shape[0]):
    pixels = x[n].reshape(-1, D)
    for j, pixel in enumerate(pixels):
      beta = softmax(np.array([(other @ f) @ (pixel @ g) for other in pixels]))
      out[n].reshape(-1, D)[j] = (
        pixel + gamma * sum(b * (other @ h) for b, other in zip(beta, pixels, strict=True)) @ v
      )
  return out


def sagan_arguments(batch=B, space=(2, 3)):
  return normal(2, (batch, *space, D), (D, K), (D, K), (D, H), (H, D), ())


def test_sagan_is_the_sum_over_pairs():
  assert_matches(image.sagan_attention, sagan_oracle, *sagan_arguments())


def test_sagan_with_gamma_0_is_the_identity_and_can_leave_it():
  x, *parameters, gamma = as_float32(sagan_arguments())
  assert (image.sagan_attention(x, *parameters, 0.0) == x).all()
  slope = jax.grad(lambda gamma: jnp.sum(image.sagan_attention(x, *parameters, gamma) ** 2))(0.0)
  assert abs(slope) > 1e-3


def test_sagan_is_an_embedded_gaussian_block():
  x, f, g, h, v, gamma = as_float32(sagan_arguments())
  assert_close(
    image.sagan_attention(x, f, g, h, v, gamma), block("embedded_gaussian", x, h, gamma * v, g, f), 1e-6
  )


def patches_of(picture, patch):
  radius = patch // 2
  mirrored = np.pad(picture, ((radius, radius), (radius, radius), (0, 0)), "symmetric")
  Y, X, _ = picture.shape
  return np.array([[mirrored[y : y + patch, x : x + patch] for x in range(X)] for y in range(Y)])


def nonlocal_means_oracle(pictures, *, strength, patch, search=None, sigma=None):
  out = np.zeros_like(pictures)
  axis = np.arange(patch) - patch // 2
  bell = np.ones((patch, patch))
  if sigma is not None:
    bell = np.exp(-(axis[:, None] ** 2 + axis[None] ** 2) / (2 * sigma**2))
  bell /= bell.sum()
  for n, picture in enumerate(pictures):
    patches = patches_of(picture, patch)
    Y, X, _ = picture.shape
    for y, x in np.ndindex(Y, X):
      total, mean = 0, np.zeros(picture.shape[-1])
      for y2, x2 in np.ndindex(Y, X):
        if search is not None and max(abs(y - y2), abs(x - x2)) > search // 2:
          continue
        distance = np.sum(bell[:, :, None] * (patches[y, x] - patches[y2, x2]) ** 2)
        weight = np.exp(-distance / strength**2)
        total, mean = total + weight, mean + weight * picture[y2, x2]
      out[n, y, x] = mean / total
  return out


@pytest.mark.parametrize(
  "options, channels",
  [
    ({"patch": 3}, 1),
    ({"patch": 3, "sigma": 0.8}, 3),
    ({"patch": 5, "search": 3}, 2),
    ({"patch": 1, "search": 99}, 1),
    ({"patch": 3, "search": 1}, 1),
  ],
)
def test_nonlocal_means_is_the_filter(options, channels):
  picture = 10 + normal(3, (2, 4, 5, channels))[0]
  options |= {"strength": 1.5}
  assert_matches(partial(image.nonlocal_means, **options), partial(nonlocal_means_oracle, **options), picture)


def test_nonlocal_means_is_attention_with_a_fixed_similarity():
  """The general attention layer, told that pixels are alike when their neighbourhoods are near one another."""
  pictures = normal(4, (1, 4, 5, 2))[0]
  patches = jnp.asarray(patches_of(pictures[0], 3).reshape(1, 20, 1, 18), jnp.float32)
  values = jnp.asarray(pictures.reshape(1, 20, 1, 2), jnp.float32)

  def near(q_BTNK, k_BSNK):
    difference_BTSNK = q_BTNK[:, :, None] - k_BSNK[:, None]
    return -jnp.square(difference_BTSNK).sum(-1).transpose(0, 3, 1, 2) / 9 / 0.7**2

  out = dot_product.attention(near, patches, patches, values)
  filtered = image.nonlocal_means(jnp.asarray(pictures, jnp.float32), strength=0.7, patch=3)
  assert_close(filtered.reshape(out.shape), np.asarray(out))


def test_nonlocal_means_removes_noise_from_what_repeats():
  rng = np.random.default_rng(5)
  clean = np.tile(rng.random((4, 4)), (4, 4))[None, :, :, None]
  noisy = clean + 0.1 * rng.standard_normal(clean.shape)
  filtered = image.nonlocal_means(jnp.asarray(noisy, jnp.float32), strength=0.15, patch=3)
  assert np.mean((filtered - clean) ** 2) < 0.25 * np.mean((noisy - clean) ** 2)
  faint = image.nonlocal_means(jnp.asarray(noisy, jnp.float32), strength=1e-2, patch=3)
  assert_close(faint, noisy, 1e-4)


def test_bfloat16():
  for form in PARAMETERS:
    assert_bfloat16(partial(block, form), partial(oracle, form), *arguments(form), bound=5e-2)
  assert_bfloat16(image.sagan_attention, sagan_oracle, *sagan_arguments(), bound=5e-2)
  options = {"strength": 2.0, "patch": 3}
  picture = normal(6, (1, 4, 4, 1))
  assert_bfloat16(
    partial(image.nonlocal_means, **options), partial(nonlocal_means_oracle, **options), *picture, bound=5e-2
  )


@pytest.mark.parametrize("space, batch", [((2, 3), 0), ((0, 3), 2), ((1, 1), 1)])
def test_empty_and_one_element(space, batch):
  for form in PARAMETERS:
    arrays = arguments(form, space, batch)
    assert_close(block(form, *as_float32(arrays)), oracle(form, *arrays))
  arrays = sagan_arguments(batch, space)
  assert_close(image.sagan_attention(*as_float32(arrays)), sagan_oracle(*arrays))
  picture = arrays[0]
  assert_close(image.nonlocal_means(jnp.asarray(picture, jnp.float32), strength=1.0, patch=1), picture)


@FORMS
def test_one_device_equals_eight(form):
  arrays = as_float32(arguments(form, batch=8))
  specs = [("all",)] + [()] * (len(arrays) - 1)
  assert_same_on_eight_devices(partial(block, form), arrays, specs, ("all",))


def test_filters_on_eight_devices():
  arrays = as_float32(sagan_arguments(batch=8))
  assert_same_on_eight_devices(image.sagan_attention, arrays, [("all",)] + [()] * 5, ("all",))
  denoise = partial(image.nonlocal_means, strength=1.0, patch=3)
  assert_same_on_eight_devices(denoise, arrays[:1], [("all",)], ("all",))


X = jnp.zeros((B, 4, 4, D))
EMBEDDED = partial(image.embedded_gaussian, theta_DK=jnp.zeros((D, K)), phi_DK=jnp.zeros((D, K)))
G, Z = jnp.zeros((D, H)), jnp.zeros((H, D))


@pytest.mark.parametrize(
  "call, message",
  [
    (
      lambda: image.nonlocal_block(X[0, 0], EMBEDDED, G, Z),
      r"x has shape \(4, 3\), wanted \[B, space..., D\]",
    ),
    (lambda: image.nonlocal_block(X, EMBEDDED, G.T, Z), r"g_DH has shape \(5, 3\), wanted DH = \(3, H\)"),
    (lambda: image.nonlocal_block(X, EMBEDDED, G, Z.T), r"z_HD has shape \(3, 5\), wanted HD = \(5, 3\)"),
    (
      lambda: image.nonlocal_block(X, EMBEDDED, G, Z, pool=5),
      r"pool 5 does not fit x of shape \(2, 4, 4, 3\)",
    ),
    (
      lambda: image.nonlocal_block(X, EMBEDDED, G, Z, pool=(1, 2, 2)),
      r"pool \(1, 2, 2\) does not fit x of shape \(2, 4, 4, 3\): one number, or one for each axis of space",
    ),
    (lambda: image.nonlocal_block(X, EMBEDDED, G, Z, pool=(1, 0)), r"pool \(1, 0\) does not fit"),
    (lambda: image.nonlocal_block(X, EMBEDDED, G, Z, pool=(1, 5)), r"pool \(1, 5\) does not fit"),
    (
      lambda: image.nonlocal_block(X, partial(EMBEDDED, phi_DK=jnp.zeros((D, K + 1))), G, Z),
      r"phi_DK has shape \(3, 5\), wanted DK = \(3, 4\)",
    ),
    (
      lambda: image.sagan_attention(X, G, G, G, Z, jnp.zeros(D)),
      r"gamma has shape \(3,\), wanted a scalar",
    ),
    (lambda: image.sagan_attention(X[0], G, G, G, Z, 0.0), r"x_BYXD has shape \(4, 4, 3\), wanted BYXD"),
    (lambda: image.nonlocal_means(X, strength=1.0, patch=4), "patch must be odd and at least 1, got 4"),
    (lambda: image.nonlocal_means(X, strength=1.0, search=-1), "search must be odd and at least 1, got -1"),
    (lambda: image.nonlocal_means(X, strength=1.0, search=0), "search must be odd and at least 1, got 0"),
    (lambda: image.nonlocal_means(X, strength=1.0, patch=11), r"patch 11 is too wide .* \(2, 4, 4, 3\)"),
    (lambda: image.nonlocal_means(X[0], strength=1.0), r"image_BYXD has shape \(4, 4, 3\), wanted BYXD"),
  ],
)
def test_bad_input(call, message):
  with pytest.raises(ValueError, match=message):
    call()
