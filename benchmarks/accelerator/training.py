"""Training steps of base and big as they ship, bfloat16 on packed rows; beside them PyTorch's compiled step."""

import functools
import time

import jax
import numpy as np

from benchmarks import train_step
from benchmarks.accelerator import lengths, peaks
from benchmarks.accelerator.part import seconds

# Name -> (config, tokens a side). The published batch of 24,576 is for 8 devices; one has room for more.
CASES = {
  "base, 24,576 tokens": ("transformer_base", 24_576),
  "big, 24,576 tokens": ("transformer_big", 24_576),
  "base, 98,304 tokens": ("transformer_base", 98_304),
}

TINY = dict(
  vocab_size=101, d_model=32, d_ff=64, num_heads=2, d_k=16, d_v=16, num_encoder_layers=1, num_decoder_layers=1
)  # fmt: skip


def make_config(name, tokens, tiny):
  import importlib

  config = importlib.import_module(f"attention_zoo.configs.{name}").get_config()
  config.data.batch_tokens = tokens
  if tiny:
    config.model.update({name: value for name, value in TINY.items() if name != "vocab_size"})
    config.data.update(vocab_size=TINY["vocab_size"], batch_tokens=1024, row_length=64)
  return config


def packed_batch(config):
  """Random tokens in packed rows, with the lengths of `lengths`. Returns (batch, target tokens that are no padding,
  mean length that a token sees)."""
  from attention_zoo.data.packing import pack

  rows, L = config.data.batch_tokens // config.data.row_length, config.data.row_length
  rng = np.random.default_rng(0)
  source, target = (np.minimum(x, L // 2) for x in lengths.pairs(rng, rows * 12))
  packing = pack(source, target, (L, L), seed=0)
  names = ("source", "source_segments", "source_positions", "targets", "target_segments", "target_positions")
  batch = {name: np.zeros((rows, L), np.int32) for name in names}
  for row in range(rows):
    for side, lengths_of in (("source", source), ("target", target)):
      at = 0
      for segment, sentence in enumerate(packing.sentences[packing.offsets[row] : packing.offsets[row + 1]], 1):
        n = lengths_of[sentence]
        tokens = "source" if side == "source" else "targets"
        batch[tokens][row, at : at + n] = rng.integers(4, config.data.vocab_size, n)
        batch[f"{side}_segments"][row, at : at + n] = segment
        batch[f"{side}_positions"][row, at : at + n] = np.arange(n)
        at += n
  batch["inputs"] = np.where(batch["target_positions"] > 0, np.roll(batch["targets"], 1, 1), 1).astype(np.int32)
  batch["inputs"] *= batch["target_segments"] > 0
  seen = float((target**2).sum() / target.sum())
  return batch, int((batch["target_segments"] > 0).sum()), seen


def model_flops(model, seen, source_per_target=1.0):
  """Operations of a training step for each target token: products of the model, forward once and backward twice.

  seen: tokens of its own sentence that a position attends to, on average (the causal half counts half).
  """
  D, F, V = model.d_model, model.d_ff, model.vocab_size
  heads = model.num_heads * (model.d_k + model.d_v)
  projections = 2 * D * heads
  encoder = model.num_encoder_layers * (projections + 2 * D * F + heads * seen)
  # Self-attention and the queries and outputs of cross-attention; its keys and values are of source tokens.
  decoder = model.num_decoder_layers * (1.5 * projections + 2 * D * F + heads * seen * 1.5)
  memory = model.num_decoder_layers * projections / 2
  return 3 * 2 * (decoder + D * V + source_per_target * (encoder + memory))


def run(part):
  peak = peaks.matmul(256 if part.tiny else 8192, jax.numpy.bfloat16)
  part.add(what="product, bfloat16, in this process", flops=peak)
  cases = dict(list(CASES.items())[:1]) if part.tiny else CASES
  for number, (name, case) in enumerate(cases.items()):
    if part.left() < (40 if not part.tiny else 0):
      part.note(f"{name}: not run, no time was left")
      continue
    try:
      measure(part, name, make_config(*case, part.tiny), peak, peer=number == 0)
    except Exception as error:
      part.failed(name, error)


def measure(part, name, config, peak, peer):
  from attention_zoo.models.translation.transformer import Config

  batch, tokens, seen = packed_batch(config)
  fields = {key: value for key, value in config.model.items() if key != "name"}
  model = Config(vocab_size=config.data.vocab_size, **fields)
  flops = model_flops(model, seen)
  params, ours, took, program = train_step.compile_step(config, batch)
  memory = program.memory_analysis()
  per_step = seconds(ours, at_least=0.5)
  part.add(
    what=name, side="attention_zoo, packed", tokens_per_second=tokens / per_step, mfu=flops * tokens / per_step / peak,
    milliseconds=1e3 * per_step, compile_seconds=took, fill=tokens / batch["targets"].size,
    temporary_gib=memory.temp_size_in_bytes / 2**30 if memory else None, model_flops_per_token=flops,
  )  # fmt: skip
  if peer:
    against_torch(part, name, config, model, params, ours, peak)


def against_torch(part, name, config, model, params, ours, peak):
  """In turn, one sentence a row for PyTorch, which has no segments: as many tokens as we have room for, so that its
  attention needs no mask. Ours computes the same step on packed rows."""
  from attention_zoo import grammar
  from attention_zoo.training.schedule import make_schedule

  try:
    import torch

    from benchmarks import peer_torch
  except ModuleNotFoundError:
    part.note("PyTorch: not run (not installed)")
    return
  device = "cuda" if torch.cuda.is_available() else "cpu"
  if jax.default_backend() == "gpu" and device == "cpu":
    part.note("PyTorch: not run (it sees no GPU)")
    return
  rows, L = config.data.batch_tokens // config.data.row_length, config.data.row_length
  batch = train_step.random_batch(config.data.vocab_size, rows, L)
  schedule = make_schedule(config.optimizer)
  rates = functools.cache(lambda step: float(schedule(min(step, 1000))))
  step = peer_torch.make_step(
    model, params, batch,
    label_smoothing=config.train.label_smoothing, learning_rate=rates,
    **grammar.parse(config.optimizer.name)[1], bfloat16=True, device=device,
  )  # fmt: skip
  kind = "eager" if device == "cpu" else "compiled"
  synchronize = torch.cuda.synchronize if device == "cuda" else lambda: None

  def peer(calls):
    for _ in range(calls):
      step()
    synchronize()

  def mine(calls):
    for _ in range(calls):
      out = ours()
    jax.block_until_ready(out)

  start = time.perf_counter()
  peer(3)
  took = time.perf_counter() - start
  calls, times = (1, {"mine": [], "peer": []}) if part.tiny else (10, {"mine": [], "peer": []})
  for _ in range(5):
    for side, go in (("mine", mine), ("peer", peer)):
      start = time.perf_counter()
      go(calls)
      times[side].append((time.perf_counter() - start) / calls)
  ratios = sorted(b / a for a, b in zip(times["mine"], times["peer"], strict=True))
  seconds_of_peer = sorted(times["peer"])[2]
  flops = model_flops(model, L)
  part.add(
    what=name, side=f"PyTorch {torch.__version__}, {kind}, one sentence a row",
    tokens_per_second=rows * L / seconds_of_peer, mfu=flops * rows * L / seconds_of_peer / peak,
    milliseconds=1e3 * seconds_of_peer, compile_seconds=took,
  )  # fmt: skip
  # A step of ours has as many positions, of which `fill` are tokens.
  part.note(
    f"{name}: a step of PyTorch takes {ratios[2]:.2f} times as long as ours ({ratios[0]:.2f} to {ratios[-1]:.2f}, 5 "
    "rounds, in turn); equal numbers of positions"
  )
