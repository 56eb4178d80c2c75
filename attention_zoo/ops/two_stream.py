"""Two-stream attention (Yang et al. 2019, "XLNet", section 2.3): what a token may see depends on where it stands in an
order of factorisation, not on where it stands in the text.

The content stream may see the token itself, the query stream may not: it has to predict it.
"""

import jax.numpy as jnp

from attention_zoo.ops.dot_product import attend
from attention_zoo.ops.einsum import einsum


def permutation_mask(order_BT, order_BS, *, itself: bool):
  """What comes before in the order may be seen, and what comes at the same place if `itself`. Returns [B, 1, T, S].
  Cost: time and memory O(T S), without heads."""
  queries_BT1, keys_B1S = order_BT[:, :, None], order_BS[:, None, :]
  return (keys_B1S <= queries_BT1 if itself else keys_B1S < queries_BT1)[:, None]


def relative_attention(
  q_BTNK, k_BSNK, v_BSNH, r_RNK, content_bias_NK, position_bias_NK, segment_bias_NK, segments_2NK, *, rows_BTS,
  same_BTS, mask, dropout=None,
):  # fmt: skip
  """Transformer-XL's attention with relative segments (Yang et al. 2019, section 2.5 and appendix A.2):

    logits_ts = ((q_t + b_content) . k_s + (q_t + b_position) . r_(t - s) + (q_t + b_segment) . e_ts) / sqrt(d_k)

  r_RNK: of each distance; rows_BTS: which row is that of query and key. e: the first row of segments_2NK where both are
  of one segment (same_BTS), else the second. Returns out_BTNH. Cost: time O((T S + T R) N K), memory O(T (S + R) N).
  """
  content_BNTS = einsum("BTNK,BSNK->BNTS", q_BTNK + _wide(content_bias_NK, q_BTNK), k_BSNK, jnp.float32)
  by_distance_BNTR = einsum("BTNK,RNK->BNTR", q_BTNK + _wide(position_bias_NK, q_BTNK), r_RNK, jnp.float32)
  position_BNTS = jnp.take_along_axis(by_distance_BNTR, jnp.broadcast_to(rows_BTS[:, None], content_BNTS.shape), 3)
  towards_BTNK = q_BTNK + _wide(segment_bias_NK, q_BTNK)
  of_segment = lambda e_NK: (towards_BTNK * _wide(e_NK, q_BTNK)).astype(jnp.float32).sum(-1)
  same_BNT1, other_BNT1 = (of_segment(e_NK).transpose(0, 2, 1)[..., None] for e_NK in segments_2NK)
  segment_BNTS = jnp.where(same_BTS[:, None], same_BNT1, other_BNT1)
  logits_BNTS = (content_BNTS + position_BNTS + segment_BNTS) * q_BTNK.shape[-1] ** -0.5
  return attend(logits_BNTS, v_BSNH, mask=mask, dropout=dropout)


def _wide(x_NK, q_BTNK):
  return x_NK[None, None].astype(q_BTNK.dtype)
