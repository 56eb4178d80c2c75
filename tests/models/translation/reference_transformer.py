"""The Transformer of "Attention Is All You Need" in NumPy float64, one sentence pair at a time, loop by loop.

Written from the equations of arXiv:1706.03762v5, not from the package: section 3.1 (post-LN: LayerNorm(x +
Sublayer(x))), 3.2.1 (eq. 1), 3.2.2, 3.3 (eq. 2), 3.4 (shared embedding, times sqrt(d_model)), 3.5, and 5.4 (dropout on
each sub-layer's output before it is added, and on the sums of embeddings and positions). Knows the parameters' names.
"""

import numpy as np


def identity(x):
  return x


def positions(length, d_model):
  """PE(pos, 2i) = sin(pos / 10000^(2i/d_model)), PE(pos, 2i+1) = cos(...)."""
  table = np.zeros((length, d_model))
  for pos in range(length):
    for i in range(0, d_model, 2):
      angle = pos / 10000.0 ** (i / d_model)
      table[pos, i], table[pos, i + 1] = np.sin(angle), np.cos(angle)
  return table


def layer_norm(x, p):
  out = np.zeros_like(x)
  for t, row in enumerate(x):
    out[t] = (row - row.mean()) / np.sqrt(row.var() + 1e-6) * p["scale"] + p["bias"]
  return out


def attention(x, memory, p, *, causal, drop_weights):
  """MultiHead(x, memory, memory) = Concat(head_1 .. head_h) W^O."""
  num_heads, d_k = p["query"]["kernel_DNK"].shape[1:]
  mix = np.zeros((num_heads, len(x), len(memory)))
  for h in range(num_heads):
    q, k = x @ p["query"]["kernel_DNK"][:, h], memory @ p["key"]["kernel_DNK"][:, h]
    for t in range(len(x)):
      seen = t + 1 if causal else len(memory)
      logits = np.array([q[t] @ k[s] / np.sqrt(d_k) for s in range(seen)])
      exp = np.exp(logits - logits.max())
      mix[h, t, :seen] = exp / exp.sum()
  mix = drop_weights(mix)
  heads = [mix[h] @ (memory @ p["value"]["kernel_DNH"][:, h]) for h in range(num_heads)]
  w_o = p["output"]["kernel_NHD"]
  return np.concatenate(heads, -1) @ w_o.reshape(-1, w_o.shape[-1])


def feed_forward(x, p):
  return np.maximum(0, x @ p["wi"]["kernel_DF"] + p["wi"]["bias_F"]) @ p["wo"]["kernel_FD"] + p["wo"]["bias_D"]


def stack(x, layers, memory, drop, drop_weights):
  """The encoder, or with a memory the decoder."""
  for i in range(len(layers)):
    p = layers[f"layer_{i}"]

    def add_and_norm(x, name, out, p=p):
      return layer_norm(x + drop(out), p[f"{name}_norm"])

    own = attention(x, x, p["self_attention"], causal=memory is not None, drop_weights=drop_weights)
    x = add_and_norm(x, "self_attention", own)
    if memory is not None:
      cross = attention(x, memory, p["cross_attention"], causal=False, drop_weights=drop_weights)
      x = add_and_norm(x, "cross_attention", cross)
    x = add_and_norm(x, "feed_forward", feed_forward(x, p["feed_forward"]))
  return x


def transformer(params, source, inputs, *, drop=identity, drop_weights=identity):
  """Logits [len(inputs), V] of one pair. source, inputs: ids; inputs are the targets shifted right.

  drop, drop_weights: what happens to sub-layer outputs and embeddings [length, d_model], and to attention weights
  [heads, queries, keys], called in the order of computation.
  """
  table = params["embedding"]["table_VD"]

  def embed(ids, side):
    d_model = table.shape[1]
    learned = params.get(f"{side}_positions")
    encoding = positions(len(ids), d_model) if learned is None else learned["table_TD"][: len(ids)]
    return drop(np.sqrt(d_model) * table[np.array(ids)] + encoding)

  memory = stack(embed(source, "source"), params["encoder"], None, drop, drop_weights)
  out = stack(embed(inputs, "target"), params["decoder"], memory, drop, drop_weights)
  return out @ table.T
