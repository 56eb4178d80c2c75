"""What another framework's class computes and ours may not: settings are checked before anything is written. And what
several folders for transformers are written with."""

import json

import numpy as np

from attention_zoo import files
from attention_zoo.errors import UserError

ACTIVATIONS = {"relu": "relu", "gelu": "gelu", "gelu_tanh": "gelu_new", "swish": "swish"}  # as transformers has them


def check(run, framework, **wanted) -> None:
  """Raises UserError unless config.model has these values. wanted: field=value, or field=(one, or another)."""
  model = run.task.model_config
  for field, values in wanted.items():
    values = values if isinstance(values, tuple) else (values,)
    if getattr(model, field) not in values:
      raise UserError(
        f"{framework} has no model with config.model.{field} = {getattr(model, field)!r}: it computes with "
        f"{' or '.join(map(repr, values))}"
      )


def check_transformer(run, framework, name, **wanted) -> None:
  """`check` for what both of the Transformers have. name: the model's."""
  c = run.task.model_config
  if run.config.model.name != name:
    raise UserError(f"{framework} has no {run.config.model.name}: only a {name} can be written for it")
  check(run, framework, feed_forward="dense", position_mode="add", **wanted)
  if not c.num_heads * c.d_k == c.num_heads * c.d_v == c.d_model:
    raise UserError(
      f"{framework} has heads of d_model / num_heads = {c.d_model / c.num_heads:g} dimensions, but config.model.d_k = "
      f"{c.d_k} and d_v = {c.d_v}"
    )


def attention(layer, d_model) -> dict:
  """{"query", "key", "value", "output": (weight [out, in], bias [out])} of an attention; without biases they are 0."""
  found = {}
  for name in ("query", "key", "value", "output"):
    kernel = next(value for leaf, value in layer[name].items() if leaf.startswith("kernel"))
    kernel = kernel.reshape((-1, d_model) if name == "output" else (d_model, -1)).T
    bias = next((value for leaf, value in layer[name].items() if leaf.startswith("bias")), None)
    found[name] = kernel, np.zeros(len(kernel), np.float32) if bias is None else bias.reshape(-1)
  return found


def write_linear(state, name, values) -> None:
  """Puts the (weight [out, in], bias [out]) of a linear map into a state dict."""
  state[f"{name}.weight"], state[f"{name}.bias"] = values


def write_norm(state, name, values) -> None:
  state[f"{name}.weight"], state[f"{name}.bias"] = values["scale"], values["bias"]


def write_json(path, value) -> None:
  files.write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")
