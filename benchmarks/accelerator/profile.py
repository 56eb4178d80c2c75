"""Which operations a training step's time goes to."""

import collections
import pathlib
import re
import tempfile

import jax

from benchmarks import train_step
from benchmarks.accelerator import training

STEPS = 5


def run(part):
  names = ("transformer_base",) if part.tiny else ("transformer_base", "transformer_big")
  for name in names:
    if part.left() < (25 if not part.tiny else 0):
      part.note(f"{name}: not run, no time was left")
      continue
    try:
      config = training.make_config(name, 24_576, part.tiny)
      batch, _, _ = training.packed_batch(config)
      _, step, _, program = train_step.compile_step(config, batch)
      table(part, name, step, origins(program.as_text()))
      del step, program
    except Exception as error:
      part.failed(name, error)


def origins(hlo) -> dict:
  """Operation of the compiled program (`plain` name) -> the operation of the model that it came from."""
  found = {}
  for line in hlo.splitlines():
    if match := re.match(r"\s*(?:ROOT )?%?([\w.-]+) = ", line):
      if source := re.search(r'op_name="([^"]*)"', line):
        found[plain(match[1])] = re.sub(r"^jit\(\w+\)/", "", source[1])
  return found


def plain(name):
  """One name for an operation and its kernel: fusion.12, fusion_12."""
  return re.sub(r"[._]+", "_", name)


def table(part, name, step, origin, top=40):
  jax.block_until_ready([step() for _ in range(2)])
  with tempfile.TemporaryDirectory() as directory:
    with jax.profiler.trace(directory):
      jax.block_until_ready([step() for _ in range(STEPS)])
    (file,) = pathlib.Path(directory).rglob("*.xplane.pb")
    data = jax.profiler.ProfileData.from_file(str(file))
  spent, counts, spans = collections.Counter(), collections.Counter(), []
  for plane in data.planes:
    if not plane.name.startswith(("/device:GPU", "/device:TPU", "/host:CPU" if part.tiny else "/device:")):
      continue
    for line in plane.lines:
      if plane.name.startswith("/device:TPU") and line.name != "XLA Ops":
        continue
      if plane.name.startswith("/device:GPU") and not line.name.startswith("Stream"):
        continue
      for event in line.events:
        stats = dict(event.stats)
        operation = stats.get("hlo_op") or ("" if part.tiny else event.name)
        if not operation:
          continue
        kernel = event.name
        if plain(kernel) == plain(operation) or operation.startswith("command_buffer"):
          operation, kernel = kernel, ""  # many kernels are launched as one: which, their own names say
        spent[operation, kernel] += event.duration_ns
        counts[operation, kernel] += 1
        spans.append((event.start_ns, event.start_ns + event.duration_ns))
  if not spent:
    part.note(f"{name}: the profile has no operations of the device")
    return
  busy, end = 0, 0
  for start, stop in sorted(spans):
    busy += max(0, stop - max(start, end))
    end = max(end, stop)
  whole = max(stop for _, stop in spans) - min(start for start, _ in spans)
  part.note(
    f"{name}: {whole / STEPS / 1e6:.2f} ms a step, the device busy {busy / whole:.0%} of them; "
    f"{sum(counts.values()) // STEPS} operations a step"
  )
  total = sum(spent.values())
  for (operation, kernel), time in spent.most_common(top):
    part.add(
      what=name, operation=operation, origin=origin.get(plain(operation), "")[-90:], kernel=kernel[:60],
      milliseconds=time / STEPS / 1e6, share=time / total,
      calls=counts[operation, kernel] / STEPS,
    )  # fmt: skip
  kinds = collections.Counter()
  for (operation, kernel), time in spent.items():
    kinds[kind(operation, f"{kernel} {origin.get(plain(operation), '')}")] += time
  part.note(f"{name}: " + ", ".join(f"{k} {v / total:.1%}" for k, v in kinds.most_common()))


def kind(operation, kernel):
  text = f"{operation} {kernel}".lower()
  for name, words in {
    "attention kernels": ("flash", "cudnn", "fmha", "mha"),
    "matrix products": ("gemm", "cublas", "cutlass", "dot", "matmul", "nvjet", "wgmma", "triton_gemm"),
    "random bits": ("rng", "threefry"),
    "reductions": ("reduce",),
    "scatter": ("scatter",),
    "copies": ("copy", "memcpy", "memset", "transpose"),
  }.items():
    if any(word in text for word in words):
      return name
  return "other fusions"
