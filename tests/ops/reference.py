"""Naive float64 NumPy versions of attention, one loop a letter, written from the papers' equations. Slow on
purpose."""

import math

import numpy as np


def softmax(logits):
  """Softmax of a list; an empty list stays empty."""
  exps = np.exp(np.array(logits, np.float64) - max(logits, default=0.0))
  return exps / exps.sum() if len(exps) else exps


def attention(q, k, v, score, visible, value=None):
  """y_t = sum_s softmax_s(score(n, t, s, q_t, k_s)) value(n, t, s, v_s) over the s with visible[b, n, t, s].

  Without value, v_s. A row that sees nothing is zero.
  """
  q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
  value = value or (lambda n, t, s, v_s: v_s)
  (B, T, N, _), S = q.shape, v.shape[1]
  out = np.zeros((B, T, N, len(value(0, 0, 0, np.zeros(v.shape[-1])))))
  for b, n, t in np.ndindex(B, N, T):
    seen = [s for s in range(S) if visible[b, n, t, s]]
    weights = softmax([score(n, t, s, q[b, t, n], k[b, s, n]) for s in seen])
    for weight, s in zip(weights, seen, strict=True):
      out[b, t, n] += weight * value(n, t, s, v[b, s, n])
  return out


def scaled_dot(n, t, s, q, k):
  return q @ k / math.sqrt(len(q))


def additive(w_query, w_key, w_score):
  return lambda n, t, s, q, k: w_score[n] @ np.tanh(w_query[n].T @ q + w_key[n].T @ k)


def concat(w, w_score):
  return lambda n, t, s, q, k: w_score[n] @ np.tanh(w[n].T @ np.concatenate([q, k]))


def general(w):
  return lambda n, t, s, q, k: q @ w[n] @ k


def location(w):
  return lambda n, t, s, q, k: w[n, s] @ q


def row(table, n, distance):
  """The row of a table [R, N or 1, K] whose middle is distance 0, clipped to its ends."""
  k = len(table) // 2
  return table[min(max(distance, -k), k) + k, n if table.shape[1] > 1 else 0]


def shaw(keys):
  return lambda n, t, s, q, k: q @ (k + row(keys, n, s - t)) / math.sqrt(len(q))


def shaw_value(values):
  return lambda n, t, s, v: v + row(values, n, s - t)


def music(table):
  """table: the last row is distance 0, the one before it -1, and so on."""
  return lambda n, t, s, q, k: (q @ k + q @ table[len(table) - 1 + s - t, n]) / math.sqrt(len(q))


def transformer_xl(table, u, v, memory=0):
  def score(n, t, s, q, k):
    r = table[len(table) - 1 + s - (t + memory), n]
    return (q @ k + q @ r + u[n] @ k + v[n] @ r) / math.sqrt(len(q))

  return score


def t5_bucket(distance, num_buckets, max_distance, bidirectional):
  """As the published code reads, with logarithms; the epsilon is for quotients that are whole numbers."""
  bucket, n = 0, -distance
  if bidirectional:
    num_buckets //= 2
    bucket, n = (num_buckets if n < 0 else 0), abs(n)
  n, exact = max(n, 0), num_buckets // 2
  if n < exact:
    return bucket + n
  large = exact + int(math.log(n / exact) / math.log(max_distance / exact) * (num_buckets - exact) + 1e-9)
  return bucket + min(large, num_buckets - 1)


def t5(table, max_distance, bidirectional):
  def score(n, t, s, q, k):
    return scaled_dot(n, t, s, q, k) + table[t5_bucket(s - t, len(table), max_distance, bidirectional), n]

  return score


def alibi(num_heads):
  return lambda n, t, s, q, k: scaled_dot(n, t, s, q, k) - 2 ** (-8 * (n + 1) / num_heads) * abs(t - s)


def rotated(x, position, base=10000.0):
  """Each pair as a complex number, multiplied by exp(i position theta)."""
  theta = base ** (-np.arange(0, len(x), 2) / len(x))
  turned = (x[::2] + 1j * x[1::2]) * np.exp(1j * position * theta)
  return np.stack([turned.real, turned.imag], -1).reshape(-1)


def rotary(n, t, s, q, k):
  return scaled_dot(n, t, s, rotated(q, t), rotated(k, s))


def povey(left, right, depth):
  """q holds the key part (depth) and the offset part; the value is extended by the one-hot offset."""

  def one_hot(t, s):
    return np.eye(left + 1 + right)[s - t + left]

  def score(n, t, s, q, k):
    return q[:depth] @ k / math.sqrt(depth) + q[depth:] @ one_hot(t, s)

  return score, lambda n, t, s, v: np.concatenate([v, one_hot(t, s)])


def strided_convolution(x, kernel, bias, stride):
  """[B, S, N, D] -> [B, ceil(S / stride), N, H]; beyond the end there are zeros."""
  x = np.asarray(x, np.float64)
  B, S, N, _ = x.shape
  out = np.zeros((B, -(-S // stride), N, kernel.shape[-1]))
  for b, c, n in np.ndindex(*out.shape[:3]):
    out[b, c, n] = bias[n]
    for w in range(len(kernel)):
      if c * stride + w < S:
        out[b, c, n] += x[b, c * stride + w, n] @ kernel[w, n]
  return out


def memory_compressed(q, k, v, parameters, stride, valid, causal):
  kernel_k, kernel_v, bias_k, bias_v = (np.asarray(p, np.float64) for p in parameters)
  k, v = np.where(valid[:, :, None, None], k, 0), np.where(valid[:, :, None, None], v, 0)
  (B, T, N, _), W = q.shape, len(kernel_k)
  keys, values = (
    strided_convolution(k, kernel_k, bias_k, stride),
    strided_convolution(v, kernel_v, bias_v, stride),
  )
  first = 1 if causal and T else 0
  keys, values = np.concatenate([k[:, :first], keys], 1), np.concatenate([v[:, :first], values], 1)
  visible = np.zeros((B, N, T, keys.shape[1]), bool)
  for b, n, t, c in np.ndindex(*visible.shape):
    field = range((c - first) * stride, (c - first) * stride + W) if c >= first else range(1)
    some_valid = any(s < T and valid[b, s] for s in field)
    visible[b, n, t, c] = some_valid and (not causal or max(field) <= t)
  return attention(q, keys, values, scaled_dot, visible)


def block_raster_rank(Y, X, tile):
  """The place of pixel [y, x] when tile after tile is generated, by walking through them."""
  rank, at = np.zeros((Y, X), int), 0
  for top in range(0, Y, tile[0]):
    for left in range(0, X, tile[1]):
      for y in range(top, min(top + tile[0], Y)):
        for x in range(left, min(left + tile[1], X)):
          rank[y, x], at = at, at + 1
  return rank


def visible_2d(Y, X, tile, flange, masked):
  """[YX, YX]: which pixels (raster order) see which."""
  rank = block_raster_rank(Y, X, tile)
  visible = np.zeros((Y, X, Y, X), bool)
  for y, x, i, j in np.ndindex(Y, X, Y, X):
    top, left = y - y % tile[0], x - x % tile[1]
    near = (
      top - flange[0] <= i < top + tile[0] + flange[0] and left - flange[1] <= j < left + tile[1] + flange[1]
    )
    visible[y, x, i, j] = near and (not masked or rank[i, j] <= rank[y, x])
  return visible.reshape(Y * X, Y * X)
