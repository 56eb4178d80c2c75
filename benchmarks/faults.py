"""Hits a training run with everything that goes wrong, and sees whether it ends as if nothing had happened.

  python -m benchmarks.faults [--hits=56] [--seed=0]

A small Transformer is trained on the phrasebook by `attention_zoo.train`, in one process with two devices or in two
with one each. A life is a run that is hit several times, at moments drawn from the seed, started again after each
hit and in the end left alone; it has survived when all bits of its final parameters are those of a run that was
never disturbed. Writes benchmarks/faults.md. A full disk and a read-only directory need root (they are mounts), the
clock is turned for the Python of the process only. Exit code 1 if anything was not survived.
"""

import argparse
import contextlib
import hashlib
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

import numpy as np
import rich.console

from attention_zoo import files
from benchmarks import common

ROOT = pathlib.Path(__file__).parents[1]
STEPS, EVERY, A_LIFE = 160, 10, 7  # steps of a run, between checkpoints; hits in a run
PATIENCE = 240  # seconds without an end that count as hanging
FLAGS = [
  "--config=configs/quickstart.py", f"--config.train.steps={STEPS}", f"--config.train.checkpoint_every={EVERY}",
  "--config.train.eval_every=80", "--config.train.log_every=1", "--config.train.keep=3",
  "--config.model.d_model=32", "--config.model.d_ff=64", "--config.model.num_heads=2", "--config.model.d_k=16",
  "--config.model.d_v=16", "--config.model.num_encoder_layers=1", "--config.model.num_decoder_layers=1",
  "--config.data.vocab_size=512", "--config.data.batch_tokens=1024",
]  # fmt: skip
# Runs in every process that has it on its path, before anything else.
CLOCK = """\
import os, time
jump, has_jumped = float(os.environ["DRILL_JUMP"]), lambda: os.path.exists(os.environ["DRILL_JUMPED"])
clock, clock_ns = time.time, time.time_ns
time.time = lambda: clock() + jump * has_jumped()
time.time_ns = lambda: clock_ns() + int(jump * 1e9) * has_jumped()
"""


class Drill:
  """One life: the work directory of a run, and what is done to it."""

  def __init__(self, directory, rng):
    self.directory, self.rng = pathlib.Path(directory), rng
    self.workdir = self.directory / "run"
    self.workdir.mkdir(parents=True)
    self.cache = self.directory.parent / "cache"

  # Starting and watching

  def start(self, processes=1, **env) -> list[subprocess.Popen]:
    env = os.environ | {
      "JAX_PLATFORMS": "cpu",
      "JAX_COMPILATION_CACHE_DIR": str(self.cache),
      "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
      "XLA_FLAGS": f"--xla_force_host_platform_device_count={2 // processes}",
      "PYTHONPATH": str(ROOT),
    } | env  # fmt: skip
    command = [sys.executable, "-m", "attention_zoo.train", *FLAGS, f"--workdir={self.workdir}"]
    ranks = [[]]
    if processes == 2:
      with socket.socket() as found:
        found.bind(("localhost", 0))
        command += [f"--coordinator=localhost:{found.getsockname()[1]}", "--num_processes=2"]
      ranks = [["--process_id=0"], ["--process_id=1"]]
    with open(self.directory / "log", "ab") as log:
      return [subprocess.Popen([*command, *rank], cwd=ROOT, stdout=log, stderr=log, env=env) for rank in ranks]

  def wait(self, process) -> int | None:
    """The exit code, or None where the process had to be killed because it hung."""
    for _ in range(PATIENCE * 10):  # Not a deadline: a drill that is itself stopped for a while counts no hangs.
      if process.poll() is not None:
        return process.returncode
      time.sleep(0.1)
    process.kill()
    process.wait()
    return None

  def step(self) -> int:
    """The last step that was logged."""
    try:
      return (self.workdir / "metrics.jsonl").read_bytes().count(b'"train"')
    except FileNotFoundError:
      return 0

  def checkpoints(self) -> list[int]:
    names = [path.name for path in self.workdir.glob("checkpoints/*")]
    return sorted(int(name) for name in names if name.isdecimal())

  def until_a_moment(self, processes) -> bool:
    """Waits: now and then for some seconds of the start, mostly for a step, and a bit. False: it ended before."""
    starting, seconds = self.rng.random() < 0.15, self.rng.uniform(0.5, 6)
    target = self.step() + self.rng.integers(1, 2 * EVERY)
    end = time.monotonic() + (seconds if starting else PATIENCE)
    while time.monotonic() < end and (starting or self.step() < target):
      if any(process.poll() is not None for process in processes):
        return False
      time.sleep(0.01)
    time.sleep(self.rng.uniform(0, 0.2))
    return all(process.poll() is None for process in processes)

  # Hits. Each returns the exit codes it led to, or None where the run had ended before.

  def signalled(self, number, processes=1, victim=0):
    running = self.start(processes)
    if not self.until_a_moment(running):
      return self.stop(running)
    running[victim].send_signal(number)
    return [self.wait(process) for process in running]

  def stop(self, running):
    codes = [self.wait(process) for process in running]
    return None if set(codes) == {0} else codes

  def sigkill(self):
    return self.signalled(signal.SIGKILL)

  def sigterm(self):
    return self.signalled(signal.SIGTERM)

  def death_of_one_of_two(self):
    return self.signalled(signal.SIGKILL, 2, int(self.rng.integers(2)))

  def clock_jump(self):
    """Up to ten years, forwards or back; SIGTERM some steps later, to go on with the life."""
    clock = self.directory / "clock"
    clock.mkdir(exist_ok=True)
    (clock / "sitecustomize.py").write_text(CLOCK)
    jumped = clock / "jumped"
    jumped.unlink(missing_ok=True)
    jump = self.rng.choice([-1, 1]) * 10 ** self.rng.uniform(3, 8.5)
    running = self.start(PYTHONPATH=f"{clock}:{ROOT}", DRILL_JUMP=str(jump), DRILL_JUMPED=str(jumped))
    if not self.until_a_moment(running):
      return self.stop(running)
    jumped.touch()
    if not self.until_a_moment(running):
      return self.stop(running)
    running[0].send_signal(signal.SIGTERM)
    return [self.wait(running[0])]

  def damage(self, harm):
    """SIGKILL, and harm to one file of the newest checkpoint, of which there must be a second."""
    running = self.start()
    while len(self.checkpoints()) < 2 and running[0].poll() is None:
      time.sleep(0.01)
    if not self.until_a_moment(running):
      return self.stop(running)
    running[0].kill()
    codes = [self.wait(running[0])]
    newest = self.workdir / "checkpoints" / str(self.checkpoints()[-1])
    files = sorted(path for path in newest.rglob("*") if path.is_file() and path.stat().st_size)
    path = files[self.rng.integers(len(files))]
    path.write_bytes(harm(bytearray(path.read_bytes())))
    return codes

  def corruption(self):
    def flip(data):
      data[self.rng.integers(len(data))] ^= 1 << self.rng.integers(8)
      return data

    return self.damage(flip)

  def truncation(self):
    return self.damage(lambda data: data[: self.rng.integers(len(data))])

  def full_disk(self):
    """All room but up to 100 kB is taken from the file system of the work directory."""
    running = self.start()
    if not self.until_a_moment(running):
      return self.stop(running)
    ballast, left = self.workdir / "ballast", int(self.rng.integers(1, 10**5))
    with open(ballast, "wb") as file:
      full = False
      while not full:
        room = os.statvfs(self.workdir)
        try:
          os.posix_fallocate(file.fileno(), 0, max(room.f_bavail * room.f_frsize - left, 1))
          full = True
        except OSError:  # the run has just written something itself
          file.truncate(0)
    codes = self.stop(running)
    ballast.unlink()
    return codes

  def read_only(self):
    """The work directory becomes read-only for every file that is not open yet."""
    running = self.start()
    if not self.until_a_moment(running):
      return self.stop(running)
    subprocess.run(["mount", "--bind", self.workdir, self.workdir], check=True)
    until = time.monotonic() + PATIENCE
    while subprocess.run(["mount", "-o", "remount,bind,ro", self.workdir], capture_output=True).returncode:
      if time.monotonic() > until:  # busy as long as the run has a file open to write there
        raise TimeoutError(f"{self.workdir} cannot be made read-only")
      time.sleep(0.01)
    codes = self.stop(running)
    subprocess.run(["umount", "--lazy", self.workdir], check=True)
    return codes

  def finish(self) -> str:
    """Lets the run end, and returns the digest of all bits of its parameters, or what went wrong."""
    code = self.wait(self.start()[0])
    return self.digest() if code == 0 else f"exit code {code}"

  def digest(self) -> str:
    from attention_zoo.training import loading

    if self.checkpoints()[-1] != STEPS:
      return f"ended at step {self.checkpoints()[-1]}"
    import jax

    leaves = jax.tree.leaves(loading.load_params(self.workdir, "latest"))
    return hashlib.sha256(b"".join(np.asarray(leaf).tobytes() for leaf in leaves)).hexdigest()


@contextlib.contextmanager
def small_disk(directory):
  """512 MB of memory as the directory's file system where that is allowed; yields whether it is."""
  mounted = not subprocess.run(
    ["mount", "-t", "tmpfs", "-o", "size=512m", "none", directory], capture_output=True
  ).returncode
  try:
    yield mounted
  finally:
    if mounted:
      subprocess.run(["umount", "--lazy", directory], check=True)


KINDS = {
  "SIGKILL": Drill.sigkill,
  "SIGTERM": Drill.sigterm,
  "death of one of two processes": Drill.death_of_one_of_two,
  "bit flipped in the newest checkpoint": Drill.corruption,
  "file of the newest checkpoint truncated": Drill.truncation,
  "full disk": Drill.full_disk,
  "read-only work directory": Drill.read_only,
  "clock jump": Drill.clock_jump,
}
MOUNTS = ("full disk", "read-only work directory")


def drill(hits, seed, directory, mounted, say) -> tuple[list[dict], str]:
  """(one record a hit, the digest of the run that was left alone)."""
  rng = np.random.default_rng(seed)
  expected = Drill(f"{directory}/undisturbed", rng).finish()
  if expected.startswith("exit code"):
    raise SystemExit(f"the undisturbed run itself ended with {expected}")
  kinds = [kind for kind in KINDS if mounted or kind not in MOUNTS]
  queue = [kinds[index % len(kinds)] for index in range(hits)]
  rng.shuffle(queue)
  records, life = [], 0
  while queue:
    life += 1
    one = Drill(f"{directory}/life_{life}", rng)
    mine = []
    while queue and len(mine) < A_LIFE:
      kind = queue.pop()
      before = one.step()
      codes = KINDS[kind](one)
      if codes is None:  # It was done before it could be hit.
        queue.insert(0, kind)
        break
      mine.append(
        {"life": life, "kind": kind, "at": max(before, one.step()), "codes": codes, "time": time.time()}
      )
      say(f"life {life}: {kind} at step {mine[-1]['at']}, exit codes {codes}")
    digest = one.finish()
    survived = digest == expected
    say(f"life {life}: " + ("the same parameters" if survived else f"NOT SURVIVED: {digest}"))
    if not survived:
      say((one.directory / "log").read_text(errors="replace")[-3000:])
    for record in mine:
      # 2 says that trying again would not help, and after it no launcher does: right for a disk that cannot be written
      # to, where anything else would be a fault that nobody explains.
      wrong = {None, 1} if record["kind"] in MOUNTS else {None, 2}
      records.append(record | {"survived": survived and not wrong.intersection(record["codes"])})
    shutil.rmtree(one.directory)
  return records, expected


def main(argv=None):
  options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  options.add_argument("--hits", type=int, default=56)
  options.add_argument("--seed", type=int, default=0)
  arguments = options.parse_args(argv)
  os.environ["JAX_PLATFORMS"] = "cpu"
  console = rich.console.Console(width=120, highlight=False)
  start = time.monotonic()
  directory = tempfile.mkdtemp(prefix="faults_")
  with small_disk(directory) as mounted:
    records, digest = drill(arguments.hits, arguments.seed, directory, mounted, console.print)
  rows = []
  for kind in KINDS:
    of = [record for record in records if record["kind"] == kind]
    codes = sorted({code for record in of for code in record["codes"]}, key=str)
    where = ", ".join(str(record["at"]) for record in of)
    survived = sum(record["survived"] for record in of)
    rows.append(
      (kind, len(of), where or "not run (needs root)", ", ".join(map(str, codes)), f"{survived} of {len(of)}")
    )
  columns = ("what", "hits", "at step", "exit codes", "survived, bit for bit")
  about = common.environment()
  survived = sum(record["survived"] for record in records)
  notes = [
    f"{survived} of {len(records)} hits in {records[-1]['life']} lives survived; {STEPS} steps, a checkpoint "
    f"every {EVERY}; {(time.monotonic() - start) / 60:.0f} minutes.",
    f"sha256 of the parameters of every run: {digest}",
    f"{about['command']}, {about['date']}, {about['processor']}, {about['cores']} cores, "
    f"jax {about['versions']['jax']}",
  ]
  table = ["| " + " | ".join(map(str, row)) + " |" for row in (columns, ["---"] * len(columns), *rows)]
  text = "\n".join(
    [
      f"# Fault drill\n\n{__doc__.split(chr(10) * 2, 2)[2].strip()}\n",
      *table,
      "",
      *[f"- {note}" for note in notes],
    ]
  )
  path = pathlib.Path(__file__).with_suffix(".md")
  files.write_text(path, text + "\n")
  console.print("\n".join([*table, *notes]))
  return 0 if survived == len(records) else 1


if __name__ == "__main__":
  sys.exit(main())
