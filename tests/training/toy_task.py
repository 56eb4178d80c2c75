"""A very small Transformer-like task with the zoo's parameter names: reverse a sequence."""

import hashlib
import itertools
import os
import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from attention_zoo.protocols import Initial, Loss, Task
from attention_zoo.training.loss import linear_cross_entropy

ROOT = pathlib.Path(__file__).parents[2]
V, D, F, N, K, B, T = 32, 16, 32, 4, 4, 16, 6


def make_config(**changes):
  """A config with small numbers; changes: {'train.steps': 3, ...}."""
  config = ConfigDict(
    {
      "task": "toy",
      "model": {"d_model": D, "dropout": 0.1},
      "data": {"seed": 0},
      "optimizer": {
        "name": "adam(b1=0.9, b2=0.98, eps=1e-9)",
        "schedule": "inverse_sqrt",
        "learning_rate": 0.5,
        "warmup_steps": 10,
        "d_model": D,
        "clip_norm": 0.0,
      },
      "train": {
        "steps": 4,
        "label_smoothing": 0.1,
        "accumulate": 1,
        "seed": 0,
        "log_every": 2,
        "eval_every": 100,
        "checkpoint_every": 100,
        "keep": 3,
        "max_nonfinite": 3,
        "ema": 0.0,
        "best_metric": "",
        "best_mode": "min",
        "patience": 0,
        "dev_samples": 2,
        "random_bits": "threefry2x32",
        "init_from": "",
        "init_map": (),
        "learning_rate_factors": (),
      },
      "decode": {},
      "mesh": {"rules": "data_parallel", "replica": 1, "data": -1, "fsdp": 1, "tensor": 1},
    }
  )
  for name, value in changes.items():
    group, field = name.split(".")
    config[group][field] = value
  return config.lock()


class ToyTask(Task):
  """bad_steps: steps whose batch has weights of NaN."""

  unit = "tokens"

  def __init__(self, config, bad_steps=()):
    self.config, self.bad_steps = config, bad_steps

  def init(self, rng):
    shapes = {
      "embedding": {"table_VD": (V, D)},
      "encoder": {
        "layer_0": {
          "self_attention": {
            "query": {"kernel_DNK": (D, N, K)},
            "key": {"kernel_DNK": (D, N, K)},
            "value": {"kernel_DNK": (D, N, K)},
            "output": {"kernel_NHD": (N, K, D)},
          },
          "self_attention_norm": {"scale": (D,), "bias": (D,)},
          "feed_forward": {
            "wi": {"kernel_DF": (D, F), "bias_F": (F,)},
            "wo": {"kernel_FD": (F, D), "bias_D": (D,)},
          },
        }
      },
      "source_positions": {"table_TD": (T, D)},
    }
    leaves, tree = jax.tree.flatten(shapes, is_leaf=lambda x: isinstance(x, tuple))
    keys = jax.random.split(rng, len(leaves))
    params = tree.unflatten(
      jax.random.normal(key, shape) * 0.3 for key, shape in zip(keys, leaves, strict=True)
    )
    return Initial(params)

  def loss(self, params, variables, carry, batch, rng, step):
    layer = params["encoder"]["layer_0"]
    x_BTD = params["embedding"]["table_VD"][batch["inputs"]] + params["source_positions"]["table_TD"][None]
    if rng is not None:
      x_BTD *= jax.random.bernoulli(rng, 1 - self.config.model.dropout, x_BTD.shape)
    q, k, v = (
      jnp.einsum("BTD,DNK->BTNK", x_BTD, layer["self_attention"][name]["kernel_DNK"])
      for name in ("query", "key", "value")
    )
    weights_BNTS = jax.nn.softmax(jnp.einsum("BTNK,BSNK->BNTS", q, k))
    mixed = jnp.einsum("BNTS,BSNK->BTNK", weights_BNTS, v)
    x_BTD += jnp.einsum("BTNK,NKD->BTD", mixed, layer["self_attention"]["output"]["kernel_NHD"])
    norm = layer["self_attention_norm"]
    x_BTD = x_BTD * norm["scale"][None, None] + norm["bias"][None, None]
    wi, wo = layer["feed_forward"]["wi"], layer["feed_forward"]["wo"]
    h_BTF = jax.nn.relu(x_BTD @ wi["kernel_DF"] + wi["bias_F"][None, None])
    x_BTD += h_BTF @ wo["kernel_FD"] + wo["bias_D"][None, None]
    smoothing = self.config.train.label_smoothing
    loss, nll, correct = linear_cross_entropy(
      x_BTD, params["embedding"]["table_VD"], batch["targets"], batch["weights"], smoothing, 8
    )
    weight = jnp.sum(batch["weights"])
    return Loss(loss, weight, {"nll": (nll, weight), "accuracy": (correct, weight)})

  def summarize(self, sums):
    means = super().summarize(sums)
    return means | {"perplexity": float(np.exp(means["nll"]))}

  def batch(self, step):
    rng = np.random.default_rng((self.config.data.seed, step))
    inputs = rng.integers(1, V, (B, T), dtype=np.int32)
    weights = (rng.random((B, T)) < 0.9).astype(np.float32)
    if step in self.bad_steps:
      weights *= np.nan
    return {"inputs": inputs, "targets": inputs[:, ::-1].copy(), "weights": weights}

  def fingerprint(self):
    return f"toy {self.config.data.seed}"

  def train_shapes(self):
    return [{name: x.shape for name, x in self.batch_shapes().items()}]

  def train_batches(self, start_step, parts, count):
    for step in itertools.count(start_step):
      yield {name: np.concatenate([np.split(x, count)[i] for i in parts]) for name, x in self.batch(step).items()}

  def eval_batches(self, split):
    for step in range(2):
      yield {name: x[:11] for name, x in self.batch(10**6 + step).items()}

  def batch_shapes(self):
    return {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in self.batch(0).items()}


def digest(params) -> str:
  """One number for all bits of a tree."""
  leaves = jax.tree.leaves(jax.tree.map(np.asarray, params))
  return hashlib.sha256(b"".join(leaf.tobytes() for leaf in leaves)).hexdigest()


class Killer(ToyTask):
  """Sends this process a signal while it fetches the batch of one step; the signal of that time only."""

  kill_at, kill_with, presses = None, None, 1

  def batch(self, step):
    if step == self.kill_at:
      for _ in range(self.presses):
        os.kill(os.getpid(), self.kill_with)
      time.sleep(10 * (self.presses - 1))
    return super().batch(step)
