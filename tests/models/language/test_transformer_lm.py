"""The language model: GPT-2's size and numbers, what it may see, and decoding with every attention."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_zoo.models.language import transformer_lm
from tests import attentions

SMALL = transformer_lm.small()
V, T = SMALL.vocab_size, 7
CASES = {name: {"attention": text, "positions": "none"} for name, text in attentions.TEXTS.items()} | {
  "learned": {},
  "post, untied": {"residual": "post", "tied": False, "positions": "sinusoidal", "scale_embedding": True},
  "L-M-L": {"attention": "local(block_width=2), memory_compressed(width=3, stride=2)", "num_layers": 3},
  "every layer": {"positions": "sinusoidal", "position_mode": "add_every_layer"},
  "experts": {"feed_forward": "mixture_of_experts(num_experts=3, k=2, capacity_factor=1.5)", "activation": "relu"},
}


def make(**fields):
  """(config, parameters that are random in every leaf, jitted forward pass)."""
  config = dataclasses.replace(SMALL, **{"num_layers": 1} | fields)
  model = transformer_lm.Model(config)
  shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), rows([T])))["params"]
  rng = np.random.default_rng(1)
  params = jax.tree_util.tree_map_with_path(
    lambda path, leaf: jnp.asarray(rng.normal(path[-1].key == "scale", 0.3, leaf.shape), leaf.dtype), shapes
  )
  return config, params, jax.jit(lambda params, batch: model.apply({"params": params}, batch))


def rows(*lengths, seed=0):
  """A batch with texts of these lengths in each row, padded to one length with anything."""
  width = max(map(sum, lengths))
  inputs = np.random.default_rng(seed).integers(0, V, (len(lengths), width))
  segments, positions = np.zeros((2, len(lengths), width), np.int32)
  for row, texts in enumerate(lengths):
    ends = np.cumsum(texts)
    for number, (start, end) in enumerate(zip(ends - texts, ends, strict=True), 1):
      segments[row, start:end], positions[row, start:end] = number, np.arange(end - start)
  batch = {"inputs": inputs, "segments": segments, "positions": positions}
  return {name: jnp.asarray(x, jnp.int32) for name, x in batch.items()}


def close(actual, wanted, tolerance=1e-5):
  np.testing.assert_allclose(np.asarray(actual, np.float64), np.asarray(wanted, np.float64), tolerance, tolerance)


# Sizes


def test_gpt_2_has_its_number_of_parameters():
  config = transformer_lm.Config(vocab_size=50257)
  assert transformer_lm.parameter_count(config) == 124_439_808
  shapes = jax.eval_shape(lambda: transformer_lm.Model(config).init(jax.random.key(0), rows([2])))["params"]
  assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 124_439_808


@pytest.fixture(scope="module", params=CASES)
def case(request):
  return make(**CASES[request.param])


def test_parameters_are_counted(case):
  config, params, _ = case
  assert sum(leaf.size for leaf in jax.tree.leaves(params)) == transformer_lm.parameter_count(config)


def test_cached_decoding_equals_teacher_forcing(case):
  """A prompt in one step, and single tokens, with beams that die and multiply."""
  config, params, forward = case
  B, J = 2, 3
  rng = np.random.default_rng(2)
  prompt = rows([T], [T])
  decoding = transformer_lm.decoding(config, params, prompt, num_beams=J)
  assert decoding.max_length == (16 if config.bounded else None)
  cache, step = decoding.grow(decoding.cache, T), jax.jit(decoding.step)
  tokens_BJT = np.zeros((B, J, T), np.int32)
  out_BJTV = np.zeros((B, J, T, V), np.float32)
  for t, length in ((0, 4), (4, 1), (5, 1), (6, 1)):
    new_BJT = rng.integers(0, V, (B, J, length), dtype=np.int32)
    logits_BJTV, cache = step(new_BJT, jnp.int32(t), cache)
    tokens_BJT[:, :, t : t + length], out_BJTV[:, :, t : t + length] = new_BJT, logits_BJTV
    parents_BJ = rng.integers(0, J, (B, J))
    cache = decoding.reorder(cache, jnp.asarray(parents_BJ))
    tokens_BJT = np.take_along_axis(tokens_BJT, parents_BJ[..., None], 1)
    out_BJTV = np.take_along_axis(out_BJTV, parents_BJ[..., None, None], 1)
  forced = rows(*[[T]] * (B * J)) | {"inputs": jnp.asarray(tokens_BJT.reshape(-1, T))}
  close(out_BJTV.reshape(-1, T, V), forward(params, forced))


# What a token may see


@pytest.mark.parametrize("fields", [{}, {"residual": "post", "positions": "sinusoidal"}])
def test_outputs_hang_on_the_past_of_their_own_text_and_on_nothing_else(fields):
  config, params, forward = make(num_layers=2, **fields)
  batch = rows([3, 4], [5, 1])
  first = np.asarray(forward(params, batch))
  for s in range(7):
    other = batch | {"inputs": batch["inputs"].at[:, s].set((batch["inputs"][:, s] + 1) % V)}
    changed_BT = (np.asarray(forward(params, other)) != first).any(-1)
    segments_BT = np.asarray(batch["segments"])
    sees_BT = (segments_BT == segments_BT[:, s : s + 1]) & (segments_BT > 0) & (np.arange(7) >= s)
    sees_BT[:, s] = True  # padding hangs on itself: the residual connection
    np.testing.assert_array_equal(changed_BT, sees_BT)


def test_packing_changes_nothing():
  _, params, forward = make(num_layers=2)
  packed = rows([3, 4])
  alone = {name: jnp.stack([x[0, :3], x[0, 3:6]]) for name, x in packed.items()}
  alone["segments"] = jnp.ones((2, 3), jnp.int32)
  out_BTV, alone_BTV = forward(params, packed), forward(params, alone)
  close(out_BTV[0, :3], alone_BTV[0])
  close(out_BTV[0, 3:6], alone_BTV[1])


def test_weights_are_sown():
  config, params, _ = make(num_layers=2)
  _, state = transformer_lm.Model(config).apply({"params": params}, rows([T]), mutable=["intermediates"])
  for i in range(2):
    (weights_BNTS,) = state["intermediates"]["decoder"][f"layer_{i}"]["self_attention"]["weights"]
    assert weights_BNTS.shape == (1, 2, T, T) and not np.triu(weights_BNTS[0, 0], 1).any()
    close(weights_BNTS.sum(-1), np.ones((1, 2, T)))


def test_positions_end_with_a_clear_message():
  config, params, _ = make()
  with pytest.raises(ValueError, match=r"end at model\.max_length = 16, but the sequence may be 17 long"):
    transformer_lm.Model(config).apply({"params": params}, rows([17]))


# Numbers


def gpt_2(params, tokens, num_layers):
  """The logits of one text, in float64,
  from the paper's description and the equations of "Attention Is All You Need"."""
  p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)

  def norm(x, p):
    deviation = np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return (x - x.mean(-1, keepdims=True)) / deviation * p["scale"] + p["bias"]

  def attention(x, p):
    q, k, v = (np.einsum("td,dnk->ntk", x, p[n][w]) + p[n][b][:, None] for n, w, b in PARTS)
    logits = np.einsum("ntk,nsk->nts", q, k) / np.sqrt(q.shape[-1])
    weights = np.exp(np.where(np.tri(len(x)), logits, -np.inf))
    heads = np.einsum("nts,nsh->nth", weights / weights.sum(-1, keepdims=True), v)
    return np.einsum("nth,nhd->td", heads, p["output"]["kernel_NHD"]) + p["output"]["bias_D"]

  def feed_forward(x, p):
    h = x @ p["wi"]["kernel_DF"] + p["wi"]["bias_F"]
    h = h / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (h + 0.044715 * h**3)))
    return h @ p["wo"]["kernel_FD"] + p["wo"]["bias_D"]

  x = p["embedding"]["table_VD"][tokens] + p["positions"]["table_TD"][: len(tokens)]
  for i in range(num_layers):
    layer = p["decoder"][f"layer_{i}"]
    x = x + attention(norm(x, layer["self_attention_norm"]), layer["self_attention"])
    x = x + feed_forward(norm(x, layer["feed_forward_norm"]), layer["feed_forward"])
  return norm(x, p["decoder"]["norm"]) @ p["embedding"]["table_VD"].T


PARTS = (("query", "kernel_DNK", "bias_NK"), ("key", "kernel_DNK", "bias_NK"), ("value", "kernel_DNH", "bias_NH"))


def test_equals_the_equations():
  _, params, forward = make(num_layers=2)
  batch = rows([T])
  close(forward(params, batch)[0], gpt_2(params, np.asarray(batch["inputs"][0]), 2))


def test_equals_hugging_face():
  torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
  config, params, forward = make(num_layers=2)
  c, batch = config, rows([T], [T])
  theirs = transformers.GPT2LMHeadModel(
    transformers.GPT2Config(
      vocab_size=V, n_positions=c.max_length, n_embd=c.d_model, n_layer=2, n_head=c.num_heads, n_inner=c.d_ff,
      bos_token_id=0, eos_token_id=0,
    )
  ).eval()  # fmt: skip
  state = {
    "transformer.wte.weight": params["embedding"]["table_VD"],
    "transformer.wpe.weight": params["positions"]["table_TD"],
  }

  def norm(name, p):
    state[f"{name}.weight"], state[f"{name}.bias"] = p["scale"], p["bias"]

  norm("transformer.ln_f", params["decoder"]["norm"])
  D = c.d_model
  for i in range(2):
    layer, at = params["decoder"][f"layer_{i}"], f"transformer.h.{i}"
    norm(f"{at}.ln_1", layer["self_attention_norm"])
    norm(f"{at}.ln_2", layer["feed_forward_norm"])
    own = layer["self_attention"]
    state[f"{at}.attn.c_attn.weight"] = np.concatenate([own[n][w].reshape(D, -1) for n, w, _ in PARTS], 1)
    state[f"{at}.attn.c_attn.bias"] = np.concatenate([own[n][b].reshape(-1) for n, _, b in PARTS])
    state[f"{at}.attn.c_proj.weight"] = own["output"]["kernel_NHD"].reshape(-1, D)
    state[f"{at}.attn.c_proj.bias"] = own["output"]["bias_D"]
    for ours, name, letters in (("wi", "c_fc", "DF"), ("wo", "c_proj", "FD")):
      state[f"{at}.mlp.{name}.weight"] = layer["feed_forward"][ours][f"kernel_{letters}"]
      state[f"{at}.mlp.{name}.bias"] = layer["feed_forward"][ours][f"bias_{letters[1]}"]
  missing, unexpected = theirs.load_state_dict({n: torch.tensor(np.asarray(x)) for n, x in state.items()}, strict=False)
  assert not unexpected and set(missing) <= {"lm_head.weight"} | {
    n for n in missing if n.endswith((".attn.bias", ".masked_bias"))
  }
  with torch.no_grad():
    wanted = theirs(torch.tensor(np.asarray(batch["inputs"], np.int64))).logits.numpy()
  close(forward(params, batch), wanted, 1e-4)
