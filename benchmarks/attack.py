"""Attacks copies of a run and sees whether it ever answers wrongly in silence, dies, hangs or writes where it must not.

  python -m benchmarks.attack [--corruptions=550] [--hostile=550] [--double_starts=16] [--seed=0] [--quick]
    [--only=KIND:NUMBER]

A small Transformer is trained on the phrasebook. An accident is done to one file of a copy (a bit flipped, the
file cut, emptied, doubled, exchanged, ...), or a folder is made that somebody could have sent, whose checksums
fit. A process with limits of time and memory opens it, translates, scores and evaluates. A silent difference is an
answer other than that of the undisturbed run from the checkpoint that the process named. Double starts are two
trainings of one work directory within a second: one must train, with the parameters of a run that was alone, and
the other end with one line. Every trial follows from the seed and its number. Writes benchmarks/attack.md; exit
code 1 if anything was found.
"""

import argparse
import hashlib
import json
import os
import pathlib
import select
import shutil
import subprocess
import sys
import tempfile
import time

import numpy as np
import rich.console

from attention_zoo import files
from benchmarks import attack_exported, attack_moves, common, faults

ROOT = pathlib.Path(__file__).parents[1]
PATIENCE = 120  # seconds for one folder, a compilation included
MUCH = 1 << 30  # bytes that opening a tiny run may take at most
FLAGS = [*faults.FLAGS, "--config.train.steps=40", "--config.train.eval_every=20"]
STARTS = [*faults.FLAGS, "--config.train.steps=60", "--config.train.eval_every=60"]
# Root may read everything, which makes files without permissions no trial.
UNPRIVILEGED = ["setpriv", "--inh-caps=-dac_override,-dac_read_search", "--bounding-set=-dac_override,-dac_read_search"]
HOSTILE = (*attack_moves.HOSTILE, attack_exported.exported, attack_exported.exported)
KINDS = (*attack_moves.KINDS, attack_exported.ACCIDENT)
FAULTS = ("silent difference", "traceback", "hang", "written outside", "memory")


def environment(base):
  return os.environ | {
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": "--xla_force_host_platform_device_count=1",
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    "JAX_COMPILATION_CACHE_DIR": str(base / "cache"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "PYTHONPATH": str(ROOT),
    "HOME": str(base / "home"),
    "TMPDIR": str(base / "tmp"),
  }  # fmt: skip


def make_run(base):
  """A trained run with an average."""
  for module, flags in (("train", FLAGS), ("average", ["--last=3"])):
    command = [sys.executable, "-m", f"attention_zoo.{module}", *flags, f"--workdir={base / 'clean'}"]
    subprocess.run(command, cwd=ROOT, env=environment(base), check=True, capture_output=True)
  return base / "clean"


def export(base, clean):
  """The run as an exported folder, which some trials are made of."""
  command = [sys.executable, "-m", "attention_zoo.export", f"--workdir={clean}", f"--to={base / 'exported'}"]
  subprocess.run(command, cwd=ROOT, env=environment(base), check=True, capture_output=True)
  return base / "exported"


class Victim:
  """The process that opens folders; a new one when it has died or hung."""

  def __init__(self, base, clean):
    self.base, self.clean, self.exported, self.process = base, clean, export(base, clean), None
    self.known, self.usual = {}, {}  # (checkpoint, dev) -> digest of the answers; what is asked for -> what is taken

  def start(self):
    command = [sys.executable, "-m", "benchmarks.attack_victim"]
    if os.geteuid() == 0 and shutil.which("setpriv"):
      command = [*UNPRIVILEGED, *command]
    self.log = open(self.base / "log", "ab")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self.log}
    self.process = subprocess.Popen(command, cwd=self.base / "home", env=environment(self.base), **pipes)
    for checkpoint in ("average", "latest", "30", "20", None):  # what the undisturbed run answers
      for dev in (True, False):
        reply = self.ask(self.clean, checkpoint, dev)
        if reply["outcome"] != "answered":
          raise SystemExit(f"the undisturbed run: {reply['outcome']} {reply.get('text')}")
        self.known[reply["from"], dev], self.usual[checkpoint] = reply["digest"], reply["from"]
    if self.ask(self.exported, None, False).get("digest") not in self.known.values():
      raise SystemExit("the exported folder does not answer as the run does")

  def ask(self, folder, checkpoint, dev) -> dict:
    if self.process is None:
      self.start()
    request = {"folder": str(folder), "checkpoint": checkpoint, "dev": dev}
    self.process.stdin.write(json.dumps(request).encode() + b"\n")
    self.process.stdin.flush()
    ready, _, _ = select.select([self.process.stdout], [], [], PATIENCE)
    line = self.process.stdout.readline() if ready else b""
    if line:
      return json.loads(line)
    self.stop()
    return {"outcome": "died" if ready else "hang", "memory": 0}

  def stop(self):
    if self.process:
      self.process.kill()
      self.process.wait()
      self.process.stdin.close(), self.process.stdout.close(), self.log.close()
    self.process = None


def snapshot(base):
  """Everything that reading must leave alone: all but the run's own folder of tokens."""
  ignored = {base / "cache", base / "log", base / "trial" / "run" / "data"}
  found, folders = {}, [base]
  while folders:
    try:
      entries = list(os.scandir(folders.pop()))
    except OSError:
      continue
    for entry in entries:
      path = pathlib.Path(entry.path)
      if path in ignored or path.is_relative_to(base / "clean") or path.is_relative_to(base / "exported"):
        continue
      state = entry.stat(follow_symlinks=False)
      folder = entry.is_dir(follow_symlinks=False)
      found[path] = None if folder else (state.st_size, state.st_mtime_ns)
      if folder:
        folders.append(path)
  return found


def trial(victim, base, clean, seed, kind, number) -> dict:
  """One attack and what came of it. kind: one of attack_moves.KINDS or the name of a function of HOSTILE."""
  rng = np.random.default_rng([seed, int.from_bytes(hashlib.sha256(kind.encode()).digest()[:4]), number])
  folder = base / "trial" / "run"
  shutil.rmtree(base / "trial", ignore_errors=True)
  shutil.copytree(clean, folder)
  accident = kind in KINDS
  if kind == attack_exported.ACCIDENT:
    attack_exported.swap(folder, victim.exported)
    what = attack_exported.corrupt(rng, folder)
  elif accident:
    what = attack_moves.corrupt(rng, folder, kind)
  else:
    what = {move.__name__: move for move in HOSTILE}[kind](rng, folder, base / "outside")
  alone = ("average/", "headers", "parameters", "exported", attack_exported.ACCIDENT)
  checkpoint = [None, "latest", "30"][int(rng.integers(3))] if kind not in alone else None
  if not accident and kind != "steps" and rng.random() < 0.5:  # nothing to fall back to
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    checkpoint = None
  dev = kind in ("data/", "places", "tokens")
  before = snapshot(base)
  reply = victim.ask(folder, checkpoint, dev)
  found = {"kind": kind, "number": number, "what": what, "outcome": reply["outcome"], "faults": []}
  text = reply.get("text") or ""
  if snapshot(base) != before:
    found["faults"].append("written outside")
  if reply["outcome"] in ("traceback", "hang"):
    found["faults"].append(reply["outcome"])
  if reply["outcome"] == "died" or reply["memory"] > MUCH:
    found["faults"].append("memory")
  if reply["outcome"] == "refused" and "\n" in text:
    found["faults"].append("traceback")
  if accident and reply["outcome"] == "answered":
    same = reply["digest"] == victim.known.get((reply["from"], dev))
    told = text or reply["from"] == victim.usual[checkpoint]
    if not (same and told):
      found["faults"].append("silent difference")
  shutil.rmtree(base / "trial", ignore_errors=True)
  shutil.rmtree(base / "outside", ignore_errors=True)
  make_outside(base)
  return found | {"text": text, "memory": reply["memory"]}


def make_outside(base):
  for name in ("outside", "home", "tmp"):
    (base / name).mkdir(parents=True, exist_ok=True)
  (base / "outside" / "secret").write_text("nothing to see")


# Two trainings of one directory


def parameters(workdir) -> str:
  """Digest of the bits of the newest parameters, and the step."""
  import jax

  from attention_zoo.training import checkpoints, loading

  leaves = jax.tree.leaves(loading.load_params(workdir, "latest"))
  digest = hashlib.sha256(b"".join(np.asarray(leaf).tobytes() for leaf in leaves)).hexdigest()
  return f"{checkpoints.steps(workdir)[-1]} {digest}"


def start(base, workdir, seed):
  command = [
    sys.executable,
    "-m",
    "attention_zoo.train",
    *STARTS,
    f"--config.train.seed={seed}",
    f"--workdir={workdir}",
  ]
  pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
  return subprocess.Popen(command, cwd=ROOT, env=environment(base), text=True, **pipes)


def end(process) -> str:
  """What it says until it ends; it is killed where it does not."""
  try:
    return process.communicate(timeout=5 * PATIENCE)[1]
  except subprocess.TimeoutExpired:
    process.kill()
    return process.communicate()[1]


def double_start(base, seed, number, alone) -> dict:
  """alone: seed -> parameters of a run that nobody disturbed."""
  rng = np.random.default_rng([seed, number])
  kind = ("the same seed", "another seed")[number % 2]
  seeds, workdir = [0, number % 2], base / f"twice_{number}"
  processes = [start(base, workdir, seeds[0])]
  time.sleep(rng.uniform(0, 1))
  processes.append(start(base, workdir, seeds[1]))
  texts = [end(process) for process in processes]
  codes = [process.returncode for process in processes]
  found = {"kind": f"double start, {kind}", "number": number, "what": f"exit codes {codes}", "faults": [], "memory": 0}
  found["outcome"], found["text"] = "refused", " | ".join(text.strip()[-300:] for text in texts)
  if any("Traceback" in text for text in texts):
    found["faults"].append("traceback")
  if any(code < 0 for code in codes):
    found["faults"].append("hang")
  elif sorted(codes) != [0, 2] or len(texts[codes.index(2)].strip().splitlines()) != 1:
    found["faults"].append("silent difference")
  else:
    trained = seeds[codes.index(0)]
    config = json.loads((workdir / "config.json").read_text())
    if parameters(workdir) != alone[trained] or config["train"]["seed"] != trained:
      found["faults"].append("silent difference")
  shutil.rmtree(workdir)
  return found


def double_starts(base, seed, count):
  alone = {}
  for s in (0, 1) if count else ():
    end(start(base, base / f"alone_{s}", s))
    alone[s] = parameters(base / f"alone_{s}")
  for number in range(count):
    yield double_start(base, seed, number, alone)


# All of it


def attack(base, run, seed, corruptions, hostile, starts, say) -> list[dict]:
  make_outside(base)
  clean = make_run(base) if run is None else shutil.copytree(run, base / "clean")
  trials = [(KINDS[i % len(KINDS)], i) for i in range(corruptions)]
  trials += [(HOSTILE[i % len(HOSTILE)].__name__, i) for i in range(hostile)]
  victim, records = Victim(base, clean), []

  def note(record):
    records.append(record)
    if record["faults"]:
      say(
        f"{record['kind']}:{record['number']} {record['what']}: {', '.join(record['faults'])}\n"
        f"  {record['text'][-1500:]}"
      )

  try:
    for done, (kind, number) in enumerate(trials):
      note(trial(victim, base, clean, seed, kind, number))
      if done % 50 == 49:
        say(f"{done + 1} of {len(trials)} trials")
  finally:
    victim.stop()
  for record in double_starts(base, seed, starts):
    note(record)
  return records


def rows_of(records):
  for kind in dict.fromkeys(record["kind"] for record in records):
    mine = [record for record in records if record["kind"] == kind]
    counts = [sum(record["outcome"] == outcome for record in mine) for outcome in ("refused", "answered")]
    wrong = [sum(fault in record["faults"] for record in mine) for fault in FAULTS]
    wrong[-1] = f"{wrong[-1]} ({max(record['memory'] for record in mine) >> 20} MB)"
    if kind not in KINDS and not kind.startswith("double"):
      wrong[0] = "-"
    yield (kind, len(mine), *counts, *wrong)


def write(path, records, arguments, minutes):
  about = common.environment()
  columns = ("attack", "trials", "refused in one line", "answered", *FAULTS)
  table = ["| " + " | ".join(map(str, row)) + " |" for row in (columns, ["---"] * len(columns), *rows_of(records))]
  found = sum(bool(record["faults"]) for record in records)
  notes = [
    f"{found} of {len(records)} trials found a fault; {minutes:.0f} minutes; seed {arguments.seed}.",
    "memory: trials that ended the process or took more than 1 GB to open, and the most that any took.",
    f"{about['command']}, {about['date']}, {about['processor']}, {about['cores']} cores, "
    f"jax {about['versions']['jax']}",
  ]
  lines = [f"# Attack\n\n{__doc__.split(chr(10) * 2, 2)[2].strip()}\n", *table, "", *(f"- {note}" for note in notes)]
  files.write_text(path, "\n".join(lines) + "\n")
  return [*table, *notes]


def main(argv=None):
  options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  options.add_argument("--corruptions", type=int, default=550)
  options.add_argument("--hostile", type=int, default=550)
  options.add_argument("--double_starts", type=int, default=16)
  options.add_argument("--seed", type=int, default=0)
  options.add_argument("--quick", action="store_true", help="a few of each, no double starts")
  options.add_argument("--only", help="KIND:NUMBER of one trial, to see it again")
  options.add_argument("--run", type=files.expand, help="the run to copy, instead of training one")
  options.add_argument("--out", type=files.expand, default=pathlib.Path(__file__).with_suffix(".md"))
  arguments = options.parse_args(argv)
  os.environ["JAX_PLATFORMS"] = "cpu"
  counts = (18, 17, 0) if arguments.quick else (arguments.corruptions, arguments.hostile, arguments.double_starts)
  console = rich.console.Console(width=160, highlight=False, markup=False)
  start = time.monotonic()
  with tempfile.TemporaryDirectory(prefix="attack_", ignore_cleanup_errors=True) as directory:
    base = pathlib.Path(directory)
    if arguments.only:
      kind, _, number = arguments.only.rpartition(":")
      make_outside(base)
      clean = make_run(base) if arguments.run is None else shutil.copytree(arguments.run, base / "clean")
      victim = Victim(base, clean)
      records = [trial(victim, base, clean, arguments.seed, kind, int(number))]
      victim.stop()
      console.print(records[0])
    else:
      records = attack(base, arguments.run, arguments.seed, *counts, console.print)
      console.print("\n".join(write(arguments.out, records, arguments, (time.monotonic() - start) / 60)))
  return 1 if any(record["faults"] for record in records) else 0


if __name__ == "__main__":
  sys.exit(main())
