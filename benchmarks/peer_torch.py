"""The Transformer of section 3 of the paper in straightforward PyTorch: the peer of `benchmarks.train_step`."""

import math

import torch
import torch.nn.functional as F
from torch import nn

EPSILON = 1e-6  # of Flax's layer normalisation


class Attention(nn.Module):
  def __init__(self, d_model, heads):
    super().__init__()
    self.heads = heads
    self.query, self.key, self.value, self.output = (
      nn.Linear(d_model, d_model, bias=False) for _ in range(4)
    )

  def forward(self, x, memory, causal=False):
    q, k, v = (
      linear(y).unflatten(-1, (self.heads, -1)).transpose(1, 2)
      for linear, y in ((self.query, x), (self.key, memory), (self.value, memory))
    )
    return self.output(F.scaled_dot_product_attention(q, k, v, is_causal=causal).transpose(1, 2).flatten(-2))


class Layer(nn.Module):
  def __init__(self, config, cross):
    super().__init__()
    d = config.d_model
    self.self_attention, self.self_attention_norm = Attention(d, config.num_heads), nn.LayerNorm(d, EPSILON)
    if cross:
      self.cross_attention, self.cross_attention_norm = (
        Attention(d, config.num_heads),
        nn.LayerNorm(d, EPSILON),
      )
    self.wi, self.wo = nn.Linear(d, config.d_ff), nn.Linear(config.d_ff, d)
    self.feed_forward_norm = nn.LayerNorm(d, EPSILON)
    self.dropout = nn.Dropout(config.dropout)

  def forward(self, x, memory=None):
    causal = memory is not None
    x = self.self_attention_norm(x + self.dropout(self.self_attention(x, x, causal)))
    if memory is not None:
      x = self.cross_attention_norm(x + self.dropout(self.cross_attention(x, memory)))
    return self.feed_forward_norm(x + self.dropout(self.wo(F.relu(self.wi(x)))))


class Transformer(nn.Module):
  """Rows of one sentence each, without padding."""

  def __init__(self, config, max_length):
    super().__init__()
    d = config.d_model
    self.table = nn.Parameter(torch.empty(config.vocab_size, d))
    self.encoder = nn.ModuleList(Layer(config, cross=False) for _ in range(config.num_encoder_layers))
    self.decoder = nn.ModuleList(Layer(config, cross=True) for _ in range(config.num_decoder_layers))
    self.dropout = nn.Dropout(config.dropout)
    angle = torch.arange(max_length)[:, None] * torch.exp(-math.log(10000.0) * torch.arange(0, d, 2) / d)
    self.register_buffer("positions", torch.stack([angle.sin(), angle.cos()], -1).flatten(1))

  def embed(self, tokens):
    x = F.embedding(tokens, self.table) * self.table.shape[1] ** 0.5
    return self.dropout(x + self.positions[: tokens.shape[1]])

  def forward(self, source, inputs):
    """Logits [rows, length, vocabulary]."""
    memory = self.embed(source)
    for layer in self.encoder:
      memory = layer(memory)
    x = self.embed(inputs)
    for layer in self.decoder:
      x = layer(x, memory)
    return x @ self.table.T


def load(model, params):
  """Copies the parameters of `models/translation/transformer.py` (a nested dict of NumPy arrays)."""

  def copy(to, values, matrix=None):
    values = torch.from_numpy(values.copy())
    to.data.copy_(values if matrix is None else values.reshape(matrix).T)

  d = model.table.shape[1]
  copy(model.table, params["embedding"]["table_VD"])
  for side in ("encoder", "decoder"):
    for i, layer in enumerate(getattr(model, side)):
      values = params[side][f"layer_{i}"]
      for name, module in layer.named_children():
        if isinstance(module, Attention):
          for part, leaf in (("query", "kernel_DNK"), ("key", "kernel_DNK"), ("value", "kernel_DNH")):
            copy(getattr(module, part).weight, values[name][part][leaf], (d, -1))
          copy(module.output.weight, values[name]["output"]["kernel_NHD"], (-1, d))
        elif isinstance(module, nn.LayerNorm):
          copy(module.weight, values[name]["scale"])
          copy(module.bias, values[name]["bias"])
        elif isinstance(module, nn.Linear):
          bias, kernel = (values["feed_forward"][name][leaf] for leaf in sorted(values["feed_forward"][name]))
          copy(module.weight, kernel, kernel.shape)
          copy(module.bias, bias)


def make_step(config, params, batch, *, label_smoothing, learning_rate, b1, b2, eps, bfloat16, device="cpu"):
  """A function that takes one training step and returns (loss per token, norm of the gradient).

  learning_rate: function of the number of steps taken. Adam is PyTorch's fused one, its fastest on a CPU too.
  On a GPU model and loss are compiled (torch.compile), the norm is left out, and the loss stays a tensor there, for
  which nobody waits.
  """
  gpu = device != "cpu"
  model = Transformer(config, max(x.shape[1] for x in batch.values()))
  load(model, params)
  model.to(device)
  source, inputs, targets = (
    torch.from_numpy(batch[name]).long().to(device) for name in ("source", "inputs", "targets")
  )
  optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate(0), betas=(b1, b2), eps=eps, fused=True)
  # PyTorch spreads the smoothing over all entries, we over all but the target.
  smoothing = label_smoothing * config.vocab_size / (config.vocab_size - 1)
  steps = 0

  def loss_of(source, inputs, targets):
    with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=bfloat16):
      logits = model(source, inputs)
    return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), label_smoothing=smoothing)

  if gpu:
    torch.set_float32_matmul_precision("high")
    loss_of = torch.compile(loss_of)

  def step():
    nonlocal steps
    for group in optimizer.param_groups:
      group["lr"] = learning_rate(steps)
    optimizer.zero_grad(set_to_none=True)
    loss = loss_of(source, inputs, targets)
    loss.backward()
    norm = None
    if not gpu:
      # Row by row: over the 19 million entries of the embedding at once PyTorch's float32 sum is off by 1e-3.
      norms = [torch.linalg.vector_norm(p.grad, dim=-1).flatten() for p in model.parameters()]
      norm = torch.linalg.vector_norm(torch.cat(norms)).item()
    optimizer.step()
    steps += 1
    return (loss.detach(), None) if gpu else (loss.item(), norm)

  return step
