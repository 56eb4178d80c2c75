"""Searches on 3,003 sentences with the lengths of `lengths`, base in bfloat16; beside them Hugging Face generate."""

import dataclasses
import functools
import time

import jax
import jax.numpy as jnp
import numpy as np

from attention_zoo.decoding.batching import length_batches
from attention_zoo.decoding.beam import beam_search
from benchmarks import decode
from benchmarks.accelerator import lengths, training
from benchmarks.accelerator.part import at_once


def run(part):
  from attention_zoo.models.translation import transformer

  sizes = dict(vocab_size=37000)
  count, budget = 3003, 32_768
  if part.tiny:
    sizes = training.TINY
    count, budget = 12, 512
  config = transformer.Config(**sizes)
  params = decode.make_parameters(transformer.Transformer(config))
  source, target = lengths.pairs(np.random.default_rng(0), count)
  if part.tiny:
    source, target = np.minimum(source, 12), np.minimum(target, 10)
  tokens = np.random.default_rng(1).integers(4, config.vocab_size, (count, 128), dtype=np.int32)
  half = dataclasses.replace(config, dtype="bfloat16", matmul_dtype="bfloat16")
  try:
    ours(part, half, params, tokens, source, target, budget)
  except Exception as error:
    part.failed("attention_zoo", error)
  order = np.argsort(-source, kind="stable")
  middle = order[count // 2 - min(256, count // 2) :][: min(512, count)]
  length = int(np.median(target[middle]))
  try:  # what Hugging Face does: one batch, all of one length
    alike = (tokens[middle], source[middle], np.full(len(middle), length))
    ours(part, half, params, *alike, budget=len(middle) * 128, label=f"{len(middle)} to {length} tokens")
  except Exception as error:
    part.failed("attention_zoo, one batch", error)
  try:
    hugging_face(part, config, params, tokens[middle], source[middle], length)
  except ModuleNotFoundError as error:
    part.note(f"Hugging Face: not run ({error.name} is not installed)")
  except Exception as error:
    part.failed("Hugging Face", error)


def ours(part, config, params, tokens, source, target, budget, label="all"):
  """Each sentence ends at its target's length, as if EOS had come there (with these parameters it never does)."""
  from attention_zoo.models.translation import transformer

  def search(params, source_BS, lengths_B, limits_B, *, beam, room):
    B, S = source_BS.shape
    positions_BS = jnp.broadcast_to(jnp.arange(S, dtype=jnp.int32), (B, S))
    segments_BS = (positions_BS < lengths_B[:, None]).astype(jnp.int32)
    inputs = {"source": source_BS, "source_segments": segments_BS, "source_positions": positions_BS}
    decoding = transformer.decoding(config, params, inputs, num_beams=beam)

    def step(tokens_BJ, t, cache):
      logits_BJTV, cache = decoding.step(tokens_BJ[:, :, None], t, cache)
      return logits_BJTV[:, :, 0], cache

    found = beam_search(
      step, decoding.cache, batch_size=B, beam_size=beam, max_lengths_B=limits_B, max_length=room,
      bos=decode.BOS, eos=decode.EOS, pad=decode.PAD, alpha=0.6, n_best=1, reorder=decoding.reorder, grow=decoding.grow,
    )  # fmt: skip
    return found.tokens_BJT[:, 0]

  params = jax.device_put(params)
  batches = []
  for batch in length_batches(source, batch_tokens=budget):
    rows = np.zeros((batch.rows, batch.padded_length), np.int32)
    limits, given = np.zeros(batch.rows, np.int32), np.zeros(batch.rows, np.int32)
    for row, i in enumerate(batch.indices):
      rows[row, : source[i]] = tokens[i, : source[i]]
      given[row], limits[row] = source[i], target[i]
    batches.append((rows, given, limits))
  steps = sum(limits.max() * len(limits) for _, _, limits in batches)

  def compiled(beam, arrays):
    room = arrays[0].shape[1] + 50  # config.decode.extra_length
    return jax.jit(functools.partial(search, beam=beam, room=room)).lower(params, *arrays).compile()

  shapes = {arrays[0].shape: arrays for arrays in batches}
  start = time.perf_counter()
  programs = at_once(
    {(beam, shape): functools.partial(compiled, beam, arrays) for beam in (4, 1) for shape, arrays in shapes.items()}
  )
  part.note(f"{len(programs)} programs compiled, side by side, in {time.perf_counter() - start:.1f} s")
  for beam in (4, 1):
    failures = [p for (b, _), p in programs.items() if b == beam and isinstance(p, Exception)]
    if failures:
      part.failed(f"beam {beam}", failures[0])
      continue

    def everything(beam=beam):
      return jax.device_get([programs[beam, arrays[0].shape](params, *arrays) for arrays in batches])

    everything()
    times = []
    for _ in range(5):
      start = time.perf_counter()
      everything()
      times.append(time.perf_counter() - start)
    seconds = sorted(times)[2]
    part.add(
      what=name(beam), side=f"attention_zoo, bfloat16, {label}", sentences=len(source), seconds=seconds,
      sentences_per_second=len(source) / seconds, tokens_per_second=float(target.sum() / seconds),
      useful_row_steps=float(target.sum() / steps), batches=len(batches),
    )  # fmt: skip


def name(beam):
  return f"beam {beam}" if beam > 1 else "greedy"


def hugging_face(part, config, params, tokens, source, length):
  """Its beam 4 and greedy search on 512 sentences of middle length, sorted, to their median target length."""
  import torch

  from attention_zoo.layers.positions import sinusoidal
  from benchmarks import peer_translators as peers

  device = "cuda" if torch.cuda.is_available() else "cpu"
  if jax.default_backend() == "gpu" and device == "cpu":
    part.note("Hugging Face: not run (PyTorch sees no GPU)")
    return
  positions = np.asarray(sinusoidal(np.arange(200), config.d_model))
  model = peers.hugging_face(config, params, positions, pad=decode.PAD, bos=decode.BOS, eos=decode.EOS)
  model = model.to(device, torch.bfloat16)
  ids = torch.from_numpy(tokens[:, : source.max()]).long().to(device)
  mask = (torch.arange(ids.shape[1])[None].to(device) < torch.from_numpy(source)[:, None].to(device)).long()
  for beam in (4, 1):

    def generate(length=length, beam=beam):
      beams = dict(num_beams=beam, length_penalty=0.0, early_stopping=False) if beam > 1 else dict(num_beams=1)
      with torch.inference_mode():
        model.generate(ids, attention_mask=mask, do_sample=False, max_length=None, max_new_tokens=length, **beams)
      if device == "cuda":
        torch.cuda.synchronize()

    generate(2)
    times = []
    while len(times) < 3 and (not times or part.left() > 2 * times[0]):
      start = time.perf_counter()
      generate()
      times.append(time.perf_counter() - start)
    took = sorted(times)[len(times) // 2]
    part.add(
      what=name(beam), side="Hugging Face generate, bfloat16", sentences=len(source), seconds=took,
      sentences_per_second=len(source) / took, tokens_per_second=len(source) * length / took,
    )  # fmt: skip
    if part.left() < 10:
      return
