"""Does the accelerator compute what the CPU and the papers' equations say?"""

import functools
import hashlib
import json
import subprocess
import sys
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from attention_zoo.training import distributed
from benchmarks import decode, train_step
from benchmarks.accelerator import training
from benchmarks.accelerator.part import at_once

FLOAT32, BFLOAT16 = 1e-5, 5e-2  # largest errors, relative to 1 + the largest entry


def run(part):
  process = resumed()  # beside the rest, but that a TPU is of one process at a time
  try:
    if distributed.tpu_chips():
      process.wait(max(part.left(), 1))
    attentions(part)
    fused(part)
    whole_step(part)
    beams(part)
    out, _ = process.communicate(timeout=max(part.left(), 1))
    lines = out.strip().splitlines()
    row = json.loads(lines[-1]) if process.returncode == 0 else {"ok": False, "error": " ".join(lines[-2:])[:300]}
    part.add(what="a run resumed in the middle, bit for bit", **row)
  finally:
    process.kill()


def error(actual, wanted):
  actual, wanted = np.asarray(actual, np.float64), np.asarray(wanted, np.float64)
  if actual.size == 0:
    return 0.0
  return float(np.abs(actual - wanted).max() / (1 + np.abs(wanted).max()))


# Each attention of ops/, at the size of its tests, against loops in float64.


def attentions(part):
  from tests.ops.variants import VARIANTS, example

  variants = VARIANTS[:2] if part.tiny else VARIANTS

  def check(variant, dtype):
    parameters, arrays, extra = example(variant, 0, T=12)
    rng = np.random.default_rng(1)
    round_to = lambda tree: jax.tree.map(lambda x: np.asarray(jnp.asarray(x, dtype), np.float64), tree)
    parameters, arrays = round_to((parameters, arrays))
    oracle = lambda parameters, arrays: variant.expected(parameters, *arrays, extra)
    wanted = oracle(parameters, arrays)
    cotangent = round_to(rng.standard_normal(wanted.shape))
    leaves, tree = jax.tree.flatten((parameters, arrays))
    direction = [rng.standard_normal(x.shape) for x in leaves]
    moved = lambda h: oracle(*tree.unflatten([x + h * d for x, d in zip(leaves, direction, strict=True)]))
    slope = np.sum(cotangent * (moved(1e-6) - moved(-1e-6))) / 2e-6

    apply = lambda parameters, arrays: variant.apply(parameters, *arrays, extra)

    @jax.jit
    def value_and_gradients(leaves, cotangent):
      function = lambda leaves: apply(*tree.unflatten(leaves))
      out, vjp = jax.vjp(function, leaves)
      return out, vjp(cotangent.astype(out.dtype))[0]

    with jax.default_matmul_precision("highest"):
      on_device = [jnp.asarray(x, dtype) for x in leaves]
      out, gradients = jax.device_get(value_and_gradients(on_device, jnp.asarray(cotangent, dtype)))
    found = sum(np.sum(np.asarray(g, np.float64) * d) for g, d in zip(gradients, direction, strict=True))
    scale = 1 + sum(
      np.linalg.norm(np.asarray(g, np.float64)) * np.linalg.norm(d) for g, d in zip(gradients, direction, strict=True)
    )
    return error(out, wanted), float(abs(found - slope) / scale)

  for dtype, bound in ((jnp.float32, FLOAT32), (jnp.bfloat16, BFLOAT16)):
    found = at_once({v.name: functools.partial(check, v, dtype) for v in variants})
    good = {}
    for name, errors in found.items():
      if isinstance(errors, Exception):
        part.failed(f"{name}, {dtype.__name__}", errors)
        good[name] = (float("inf"),) * 2
      else:
        good[name] = errors
    for name, errors in good.items():
      if max(errors) > bound or np.isnan(max(errors)):
        part.add(what=f"{name}, {dtype.__name__}", ok=False, bound=bound, forward=errors[0], gradient=errors[1])
    part.add(
      what=f"{len(variants)} attentions, {dtype.__name__}, against float64 loops",
      ok=all(max(errors) <= bound for errors in good.values()), bound=bound,
      forward=max(e[0] for e in good.values()), gradient=max(e[1] for e in good.values()),
    )  # fmt: skip


# The fused paths, at sizes that they take, against float32 products of full precision.


def fused(part):
  from attention_zoo.ops import dot_product, masks
  from attention_zoo.ops.variant import Sizes

  B, T, N, K = (2, 32, 2, 16) if part.tiny else (4, 512, 8, 64)
  rng = np.random.default_rng(0)
  segments_BT = jnp.asarray(np.sort(rng.integers(1, 4, (B, T)), 1), jnp.int32).at[:, -T // 8 :].set(0)
  packed = masks.segments(segments_BT, segments_BT)
  cases = {  # name -> mask, and what kind of layer asks
    "no mask": (None, None),
    "causal": (masks.causal(T), None),
    "packed": (packed, None),
    "rows that see nothing": (packed & (jnp.arange(T) % 3 > 0)[None, None, :, None], None),
    "packed, in a layer": (packed, "all"),
    "packed, causal, in a layer": (packed & masks.causal(T), "causal"),
  }

  def value_and_gradients(mask, layer, dtype):
    arrays = [jax.random.normal(jax.random.key(i), (B, T, N, K), jnp.float32).astype(dtype) for i in range(4)]
    function = lambda *qkv: dot_product.dot_product_attention(*qkv, mask=mask)
    if layer:  # with segments beside the mask, as a layer asks: on a GPU the flash kernel
      attend = dot_product.dot_product(Sizes(N * K, N, K, K, T, causal=layer == "causal")).attend
      function = lambda *qkv: attend({}, *qkv, mask=mask, segments_BT=segments_BT)

    @jax.jit
    def both(q, k, v, cotangent):
      out, vjp = jax.vjp(function, q, k, v)
      return out, *vjp(cotangent)

    return both(*arrays)

  def check(mask, layer):
    fast = value_and_gradients(mask, layer, jnp.bfloat16)
    with jax.default_matmul_precision("highest"):
      exact = value_and_gradients(mask, None, jnp.float32)
    return [error(a, b) for a, b in zip(jax.device_get(fast), jax.device_get(exact), strict=True)]

  for name, errors in at_once({name: functools.partial(check, *case) for name, case in cases.items()}).items():
    if isinstance(errors, Exception):
      part.failed(f"fused, {name}", errors)
      part.add(what=f"dot-product attention, bfloat16, {name}", ok=False)
    else:
      ok = max(errors) <= BFLOAT16
      part.add(
        what=f"dot-product attention, bfloat16, {name}",
        ok=ok,
        bound=BFLOAT16,
        forward=errors[0],
        gradient=max(errors[1:]),
      )


# A training step and a search of base against the CPU's.


def whole_step(part):
  from attention_zoo.training import sharding

  rows, length = (2, 16) if part.tiny else (8, 64)
  config = train_step.make_config(part.tiny, False, 0.0, rows, length)
  batch = train_step.random_batch(config.data.vocab_size, rows, length)

  def gradients(devices):
    from attention_zoo import tasks

    task = tasks.make(config, tempfile.gettempdir())
    mesh = Mesh(np.array(devices[:1]).reshape(1, 1, 1, 1), sharding.AXES)
    with jax.default_device(devices[0]), jax.set_mesh(mesh), jax.default_matmul_precision("highest"):
      params = jax.jit(lambda: task.init(jax.random.key(0)).params)()

      @jax.jit
      def both(params, batch):
        def objective(params):
          loss = task.loss(params, {}, {}, batch, None, None)
          return loss.value / loss.weight

        return jax.value_and_grad(objective)(params)

      return jax.device_get(both(params, sharding.put_batch(batch, mesh)))

  found = at_once({"device": lambda: gradients(jax.devices()), "cpu": lambda: gradients(jax.devices("cpu"))})
  for side, value in found.items():
    if isinstance(value, Exception):
      part.failed(f"training step on the {side}", value)
      part.add(what="loss and gradients of a base step, float32, against the CPU's", ok=False)
      return
  (loss, mine), (wanted, theirs) = found["device"], found["cpu"]
  norm = lambda tree: np.sqrt(sum(np.sum(np.square(np.asarray(x, np.float64))) for x in jax.tree.leaves(tree)))
  difference = norm(jax.tree.map(lambda a, b: np.asarray(a, np.float64) - b, mine, theirs)) / norm(theirs)
  part.add(
    what="loss and gradients of a base step, float32, against the CPU's",
    ok=bool(abs(loss - wanted) < 1e-5 * wanted and difference < 1e-3),
    forward=float(abs(loss - wanted) / wanted), gradient=float(difference),
  )  # fmt: skip


def beams(part):
  from attention_zoo.models.translation import transformer

  sizes = dict(vocab_size=37000, num_encoder_layers=2, num_decoder_layers=2)
  rows, length = 16, 24
  if part.tiny:
    sizes = training.TINY
    rows, length = 2, 5
  config = transformer.Config(**sizes)
  params = decode.make_parameters(transformer.Transformer(config))
  source = np.random.default_rng(1).integers(4, config.vocab_size, (rows, length), dtype=np.int32)

  def search(devices):
    with jax.default_matmul_precision("highest"):
      return decode.our_search(
        transformer.Transformer(config),
        params,
        source,
        beam_size=4,
        length=length,
        room=length + 50,
        devices=devices[:1],
      )()

  found = at_once({"device": lambda: search(jax.devices()), "cpu": lambda: search(jax.devices("cpu"))})
  for side, value in found.items():
    if isinstance(value, Exception):
      part.failed(f"beam search on the {side}", value)
      part.add(what="beam 4, float32, tokens against the CPU's", ok=False)
      return
  same = (found["device"][0] == found["cpu"][0]).all(1)
  apart = float(np.abs(found["device"][1] - found["cpu"][1]).max())
  part.add(
    what="beam 4, float32, tokens against the CPU's",
    ok=bool(same.all()),
    same=f"{same.sum()} of {len(same)}",
    forward=apart,
  )


# A run that was stopped in the middle.


def resumed():
  """A process that compares 20 steps with 10 and 10 more."""
  command = [sys.executable, "-m", "benchmarks.accelerator.right"]
  return subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def resume():
  """Prints whether 20 steps, and 10 and then 10 more, end with the same bits."""
  from attention_zoo import tasks
  from attention_zoo.configs import quickstart
  from attention_zoo.training import loop
  from tests.small_run import SMALL

  def config(steps):
    config = quickstart.get_config()
    for group, fields in SMALL.items():
      config[group].update(fields)
    config.data.source = "phrasebook"
    config.train.update(steps=steps, checkpoint_every=10, eval_every=20)
    return config

  def digest(state):
    leaves = jax.tree.leaves(jax.device_get(state.params))
    return hashlib.sha256(b"".join(np.asarray(x).tobytes() for x in leaves)).hexdigest()

  with tempfile.TemporaryDirectory() as directory:
    found = []
    for name, parts in (("whole", (20,)), ("again", (20,)), ("resumed", (10, 20))):
      for steps in parts:
        task = tasks.make(config(steps), f"{directory}/{name}")
        state = loop.train(task, config(steps), f"{directory}/{name}", quiet=True)
      found.append(digest(state))
  whole, again, resumed = found
  print(
    json.dumps(
      {"ok": whole == resumed, "same": "the same run twice is " + ("equal" if whole == again else "not equal")}
    )
  )


if __name__ == "__main__":
  resume()
