"""Trains until done: starts attention_zoo.train again whenever it was preempted or died.

  python -m launch.restart --max_failures=3 -- --config=configs/quickstart.py --workdir=runs/quickstart

What follows `--` goes to `python -m attention_zoo.train` as it stands. Training resumes from the newest
checkpoint in the work directory by itself; this program only decides whether to start it once more:

  exit code of training             what happens
   0  done                          stop, exit code 0
   2  bad input, or a full disk     stop, exit code 2: trying again would not help
   3  loss not finite               stop, exit code 3: look at the message before going on
  75  preempted, state saved        start again; never counts as a failure
 129, 130  stopped by the user      stop, with the same exit code: a closed terminal or Ctrl-C
  anything else (crash, killed)     start again, but give up after --max_failures failures in a row without a
                                    newer checkpoint, with the exit code of the last failure

SIGTERM, Ctrl-C and a closed terminal are passed on to training (under srun as SIGTERM): it saves and exits, and nothing
is started again. A second Ctrl-C ends it at once.
"""

import argparse
import io
import os
import signal
import subprocess
import sys
import time

from attention_zoo import files
from attention_zoo.errors import UserError

DONE, BAD_INPUT, NON_FINITE, PREEMPTED = 0, 2, 3, 75  # exit codes of attention_zoo.train
STOPPED = (128 + signal.SIGHUP, 128 + signal.SIGINT)  # by the user: a closed terminal, Ctrl-C

# One process per task. --wait: when one has ended, the others get a minute to end too instead of hanging.
SRUN = ["srun", "--label", "--wait=60"]


def split_command(argv):
  """Splits at `--`. Returns (launcher's arguments, training's arguments, workdir); raises UserError."""
  if "--" not in argv:
    return argv, None, None
  cut = argv.index("--")
  train_args = argv[cut + 1 :]
  parser = argparse.ArgumentParser(allow_abbrev=False, add_help=False)
  for flag in ("--config", "--workdir"):
    parser.add_argument(flag, nargs="?")
  known, _ = parser.parse_known_args(train_args)
  if not (known.config and known.workdir):
    raise UserError("after `--`, training needs both --config=FILE and --workdir=DIR")
  return argv[:cut], train_args, known.workdir


def need_training(train_args):
  """Raises UserError unless the command line had a `--` part."""
  if train_args is None:
    raise UserError(
      "say what to train behind `--`, for example: -- --config=configs/quickstart.py --workdir=runs/a"
    )


def list_checkpoints(workdir):
  """The command that lists the marks of the complete checkpoints of a work directory in a bucket."""
  return ["gcloud", "storage", "ls", f"{workdir.rstrip('/')}/checkpoints/*/commit_success.txt"]


def newest_checkpoint(workdir):
  """Newest step in WORKDIR/checkpoints (local or gs://), or None where there is none to be seen."""
  if workdir.startswith("gs://"):
    command = list_checkpoints(workdir)
    options = {"capture_output": True, "text": True, "stdin": subprocess.DEVNULL, "timeout": 120}
    try:
      listing = subprocess.run(command, check=True, **options)
    except (OSError, subprocess.SubprocessError):
      return None
    names = [line.split("/")[-2] for line in listing.stdout.split() if line.endswith("/commit_success.txt")]
  else:
    folder = files.expand(workdir) / "checkpoints"
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
  # On a disk half-written ones have other names.
  return max((int(name) for name in names if name.isdecimal()), default=None)


def speak_utf8():
  """Standard output and error in UTF-8, whatever the locale says; names of files may hold any bytes."""
  for stream, errors in ((sys.stdout, "surrogateescape"), (sys.stderr, "backslashreplace")):
    if isinstance(stream, io.TextIOWrapper):
      stream.reconfigure(encoding="utf-8", errors=errors)


def say(text):
  """What nobody can read any more (`restart ... 2>&1 | head -1`) stops nothing."""
  try:
    print(f"restart: {text}", file=sys.stderr, flush=True)
  except OSError:  # Python would try once more when it exits
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


class Attempts:
  """Counts failures without progress and decides, after each attempt, whether there will be another."""

  def __init__(self, max_failures, newest):
    self.max_failures = max_failures
    self.best = -1 if newest is None else newest
    self.failures = 0

  def after(self, code, newest):
    """Takes exit code and newest checkpoint. Returns (exit code to stop with or None to go on, why)."""
    if code == DONE:
      return DONE, "training is done"
    if code == BAD_INPUT:
      return code, "training refused its input (exit code 2); its message above says what to change"
    if code == NON_FINITE:
      return code, "training stopped because the loss is not finite (exit code 3)"
    if code in STOPPED:
      return code, f"training was stopped by the user (exit code {code}); the same command goes on"
    progress = newest is not None and newest > self.best
    if progress:
      self.best, self.failures = newest, 0
    at = f"newest checkpoint: {self.best}" if self.best >= 0 else "no checkpoint yet"
    if code == PREEMPTED:
      return None, f"training was preempted; {at}"
    self.failures += not progress
    why = f"training failed (exit code {code}); {at}; failures without a newer one: {self.failures}"
    if self.failures >= self.max_failures:
      return code, f"{why}; giving up"
    return None, f"{why} of {self.max_failures}"


def supervise(command, attempts, workdir, *, pause, srun=False):
  """Runs `command` again and again until `attempts` says stop, under srun also when preempted.
  Returns the exit code."""
  child, stopped = None, []

  def forward(number, _):
    stopped.append(number)
    if child is not None and child.poll() is None:
      pass_on()

  def pass_on():
    child.send_signal(signal.SIGTERM if srun else stopped[-1])  # srun keeps SIGINT for itself

  for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(number) != signal.SIG_IGN:  # nohup stays nohup
      signal.signal(number, forward)
  while True:
    # Its own session: Ctrl-C in a terminal then reaches training once, through `forward`, and not twice.
    child = subprocess.Popen(command, start_new_session=True)
    if stopped:  # a signal that came while the child was being started has not reached it
      pass_on()
    code = child.wait()
    code = 128 - code if code < 0 else code  # killed by a signal: as a shell would report it
    verdict, why = attempts.after(code, newest_checkpoint(workdir))
    say(why)
    if verdict is not None:
      return verdict
    if stopped or (srun and code == PREEMPTED):
      return code
    deadline = time.monotonic() + pause
    while time.monotonic() < deadline and not stopped:
      time.sleep(0.1)
    if stopped:
      return code


def main(argv=None):
  parser = argparse.ArgumentParser(
    prog="python -m launch.restart",
    description=__doc__,
    allow_abbrev=False,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    usage="%(prog)s [flags] -- --config=FILE --workdir=DIR ...",
  )
  parser.add_argument(
    "--max_failures",
    type=int,
    default=3,
    metavar="N",
    help="give up after N failures in a row without a newer checkpoint (default: %(default)s)",
  )
  parser.add_argument(
    "--pause",
    type=float,
    default=10,
    metavar="SECONDS",
    help="wait before starting again (default: %(default)s)",
  )
  parser.add_argument(
    "--srun",
    action="store_true",
    help="inside a Slurm batch job: start one process per task with srun; exit with 75 when "
    "preempted, so that the batch script can requeue the job",
  )
  try:
    own, train_args, workdir = split_command(sys.argv[1:] if argv is None else argv)
    args = parser.parse_args(own)
    need_training(train_args)
    if args.max_failures < 1:
      raise UserError(f"--max_failures={args.max_failures} must be at least 1")
  except UserError as error:
    print(f"error: {error}", file=sys.stderr)
    return BAD_INPUT
  prefix = SRUN if args.srun else []
  command = [*prefix, sys.executable, "-m", "attention_zoo.train", *train_args]
  attempts = Attempts(args.max_failures, newest_checkpoint(workdir))
  try:
    return supervise(command, attempts, workdir, pause=args.pause, srun=args.srun)
  except FileNotFoundError as error:
    print(f"error: cannot start {command[0]}: {error}", file=sys.stderr)
    return BAD_INPUT


if __name__ == "__main__":
  speak_utf8()
  sys.exit(main())
