"""The directory of a grid: its settings, its lock, and how far each row is.

WORKDIR/grid.json                  settings, which every row shares; another start with others is refused
WORKDIR/lock                       held by the runner and by what it started, for as long as any of them lives
WORKDIR/tokenizer.model, text.json the vocabulary, made once, and the digest of the text that it is of
WORKDIR/data/                      the tokenised text
WORKDIR/rows/ROW/seed_N/           a work directory of attention_zoo.train, and besides log.txt and row.json
"""

import contextlib
import dataclasses
import fcntl
import json
import os
import pathlib
import platform
import shlex
import shutil
import signal
import time

from attention_zoo import files
from attention_zoo.errors import UserError
from launch import ablation_rows, restart

RUNNING = ("training", "evaluating")
SHARED = ("tokenizer.model", "text.json")  # training refuses another text than that of its text.json


def share(source, target):
  """Copies the vocabulary from one directory to another that has none."""
  for name in SHARED:
    if (source / SHARED[-1]).exists() and not (target / name).exists():
      files.write_bytes(target / name, (source / name).read_bytes())


def write_json(path, value):
  files.write_text(path, json.dumps(value, indent=1) + "\n")


def read_json(path):
  """None where there is no such file, or where it is cut short."""
  try:
    return json.loads(path.read_text(encoding="utf-8"))
  except (FileNotFoundError, NotADirectoryError, ValueError):
    return None


@dataclasses.dataclass(frozen=True)
class Grid:
  """settings: {"scale", "data", "fields": of `ablation_rows.base_fields`, "commands"}."""

  workdir: pathlib.Path
  settings: dict

  @property
  def fields(self):
    # JSON has no tuples.
    return {k: tuple(v) if isinstance(v, list) else v for k, v in self.settings["fields"].items()}

  @property
  def cache(self):
    return self.workdir / "data"

  def directory(self, row, seed):
    return self.workdir / "rows" / row / f"seed_{seed}"

  def seeds(self, row):
    """The seeds that were begun, in order."""
    found = [path.name.removeprefix("seed_") for path in self.directory(row, 0).parent.glob("seed_*")]
    return sorted(int(seed) for seed in found if seed.isdecimal())


def open_grid(workdir):
  """The grid of a directory. Raises UserError where there is none."""
  workdir = pathlib.Path(workdir).absolute()
  settings = read_json(workdir / "grid.json")
  if settings is None:
    raise UserError(f"{workdir} holds no grid: `python -m launch.ablation run` makes one")
  return Grid(workdir, settings)


def make_grid(workdir, scale, data, fields, command):
  """Begins a grid, or goes on with it. Raises UserError where rows were trained with other settings."""
  workdir = pathlib.Path(workdir).absolute()
  old = read_json(workdir / "grid.json") or {}
  new = {"scale": scale, "data": data, "fields": fields}
  if old:
    was, now = (
      {"scale": s["scale"]}
      | {f"config.{k}": v for k, v in ablation_rows.row_fields("base", Grid(workdir, s).fields).items()}
      for s in (old, new)
    )
    different = {name for name in now if was.get(name) != now[name]}
    trained = any(
      restart.newest_checkpoint(str(path)) is not None or (path / "eval").exists()
      for path in workdir.glob("rows/*/seed_*")
    )
    if trained and (different := different - {"config.data.dir"}):  # moved; training knows its text again
      raise UserError(
        f"{workdir} holds a grid with other settings (there -> here):\n"
        + "".join(f"  {name}: {was.get(name)} -> {now[name]}\n" for name in now if name in different)
        + "Rows are compared with each other: go on with the old settings, or choose another --workdir"
      )
    if different:  # nothing is lost, and what is there belongs to the other settings
      old = {}
      if (workdir / "rows").exists():
        shutil.rmtree(workdir / "rows")
      for name in SHARED:
        (workdir / name).unlink(missing_ok=True)
  commands = [*(line for line in old.get("commands", []) if line != command), command]
  name = old.get("data", data)  # of the text that rows were trained on, wherever it is now
  write_json(workdir / "grid.json", new | {"data": name, "commands": commands})
  return open_grid(workdir)


# Lock

_ENCODING = {"encoding": "utf-8", "errors": "surrogateescape"}  # the command may name files of any bytes


def _alive(pid):
  try:
    os.kill(pid, 0)
  except ProcessLookupError:
    return False
  except PermissionError:
    pass
  return True


def left_behind(workdir):
  """{pid: row directory} of trainings and evaluations whose runner is gone. Certain only where there is /proc."""
  found = {}
  for path in workdir.glob("rows/*/seed_*/row.json"):
    pid = (read_json(path) or {}).get("pid")
    try:
      words = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
      continue
    if f"--workdir={path.parent}".encode() in words:
      found[pid] = path.parent
  return found


def take_lock(workdir, command, say, patience=60.0):
  """Returns the held lock, an open file; what is started with its descriptor holds it too.

  Of a runner that was killed, its trainings may live on and hold the lock: they are told to save and to stop. Raises
  UserError, which names the process, where another runner is at work.
  """
  lock = open(workdir / "lock", "a+", **_ENCODING)
  try:
    _wait_for(lock, workdir, say, patience)
    lock.truncate(0)
    lock.write(f"{os.getpid()} {platform.node()} since {time.strftime('%Y-%m-%d %H:%M:%S')}: {command}\n")
    lock.flush()
    for path in workdir.glob("rows/*/seed_*/row.json"):  # nothing runs now, whatever a killed runner noted
      if (note := read_json(path) or {}).get("status") in RUNNING:
        write_json(path, note | {"status": "stopped", "pid": None})
  except BaseException:
    lock.close()
    raise
  return lock


def _wait_for(lock, workdir, say, patience):
  begun = seen = time.monotonic()
  told = set()
  while True:
    try:
      fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
      return
    except BlockingIOError:
      pass
    lock.seek(0)
    holder = lock.read().strip()
    pid, _, rest = holder.partition(" ")
    host = rest.partition(" ")[0]
    if not pid.isdecimal() or host != platform.node() or _alive(int(pid)):
      raise UserError(f"{workdir} is being run already, by process {holder or '(unknown)'}")
    orphans, now = left_behind(workdir), time.monotonic()
    seen = now if orphans else seen
    # One that is ending holds the lock a moment longer than it can be found.
    if now - begun > patience or now - seen > 5:
      names = ", ".join(map(str, orphans)) or "(unknown)"
      raise UserError(
        f"{workdir}: runner {pid} is gone, but processes that it started go on: {names}; end them first"
      )
    for orphan in orphans.keys() - told:
      told.add(orphan)
      say(f"process {orphan}, left behind by runner {pid}, is told to save and stop: {orphans[orphan]}")
      with contextlib.suppress(ProcessLookupError):
        os.kill(orphan, signal.SIGTERM)
    time.sleep(0.2)


def locked(workdir):
  """The line that names the process at work, or ""."""
  try:
    with open(workdir / "lock", **_ENCODING) as lock:
      try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
      except BlockingIOError:
        return lock.read().strip()
  except FileNotFoundError:
    pass
  return ""


# How far a row is


def result(directory, steps):
  """What `attention_zoo.evaluate` found on the dev set after the last of `steps`, or None."""
  found = read_json(directory / "eval" / "dev-latest.json")
  return found if found and found["step"] == str(steps) else None


def records(directory, tail=1 << 16):
  """The last records of metrics.jsonl, at most `tail` bytes of them (0: all)."""
  try:
    with open(directory / "metrics.jsonl", "rb") as file:
      size = file.seek(0, os.SEEK_END)
      start = max(0, size - tail) if tail else 0
      file.seek(start)
      lines = file.read().split(b"\n")
  except FileNotFoundError:
    return []
  found = []
  for line in lines[1 if start else 0 : -1]:  # whole lines only
    try:
      found.append(json.loads(line))
    except ValueError:
      continue
  return found


@dataclasses.dataclass
class Progress:
  """status: done, training, evaluating, failed, stopped, not run. seconds_left: None where nothing tells."""

  status: str
  message: str = ""
  step: int = 0
  loss: float | None = None
  seconds_left: float | None = None
  perplexity: float | None = None
  bleu: float | None = None


def bleu_of(found):
  """The paper's dialect: of tokens, compounds split. A row of `attention_zoo.evaluation.bleu`."""
  return next(row for row in found["bleu"] if "compounds split" in row["name"])


def progress(directory, steps, at_work):
  """How far a row is. steps: of its training. at_work: whether a runner holds the lock."""
  note = read_json(directory / "row.json") or {}
  train = [record for record in records(directory) if record.get("split") == "train"]
  step = max(train[-1]["step"] if train else 0, restart.newest_checkpoint(str(directory)) or 0)
  loss = train[-1].get("loss") if train else None
  status, message, left = note.get("status", "not run"), note.get("message", ""), None
  if found := result(directory, steps):
    return Progress("done", "", steps, loss, None, found["perplexity"]["per_subword"], bleu_of(found)["score"])
  if status in RUNNING and not at_work:
    status = "stopped"
  if status == "training":
    now = [record for record in train if record["time"] >= note["since"]]
    if len(now) > 1 and now[-1]["step"] > now[0]["step"]:
      left = (steps - step) * (now[-1]["time"] - now[0]["time"]) / (now[-1]["step"] - now[0]["step"])
  if status == "stopped":
    message = message or f"at step {step} of {steps}; run again to go on"
  return Progress(status, message, step, loss if isinstance(loss, float) else None, left)


def command_line(argv):
  return shlex.join(["python", "-m", "launch.ablation", *argv])
