"""Training on a Cloud TPU from start to end: start, follow, judge, recover."""

import sys
import time

from attention_zoo.errors import UserError
from launch import restart
from launch.gcloud import GcloudError, Unreachable
from launch.restart import BAD_INPUT, DONE, NON_FINITE, PREEMPTED, STOPPED
from launch.tpu import Lost, run_id


def outcome(workers):
  """One exit code for all workers that have ended, or None if none has."""
  # One that vanished went down with its machine. A failure too: training may be what brings it down.
  codes = {1 if worker.state == "absent" else worker.code for worker in workers if worker.state != "running"}
  if len(codes) < 2:
    return next(iter(codes), None)
  for code in (NON_FINITE, *STOPPED, PREEMPTED):
    if code in codes:
      return code
  return max(codes - {DONE, BAD_INPUT}, default=1)  # bad input only if all say so


def watch(tpu, *, grace=120, patience=3):
  """Follows the logs until training has ended everywhere. Returns its exit code.

  Raises Lost, Deleted or GcloudError.
  grace: seconds that the other workers get once one has ended (they notice by themselves that it is gone).
  patience: failures in a row to reach the workers before that counts as a failure. That Google itself cannot be
  reached never does: training goes on without us, and so does watching, when it can.
  """
  ended, failures, logs = None, 0, tpu.follow()
  try:
    while True:
      if not tpu.gcloud.dry_run:
        time.sleep(tpu.poll)
      try:
        condition, detail = tpu.condition()
        if condition in ("lost", "failed"):
          raise Lost(f"{tpu.name} was taken away: {detail}")
        workers = tpu.ask()
        failures = 0
      except Unreachable as error:
        tpu.gcloud.say(f"cannot find out what exists, looking again: {error}")
        continue
      except GcloudError as error:
        failures += 1
        if failures >= patience:
          raise
        tpu.gcloud.say(f"cannot reach {tpu.name} ({failures} of {patience}): {error}")
        continue
      code = outcome(workers)
      running = [worker.name for worker in workers if worker.state == "running"]
      if not running:
        logs.drain(15)  # the last lines
        if gone := [worker.name for worker in workers if worker.state == "absent"]:
          tpu.gcloud.say(f"gone without an exit code, as when a machine restarts: {', '.join(sorted(gone))}")
        return code
      if len(running) == len(workers):
        if not logs.running():
          logs.stop()
          logs = tpu.follow(lines=0)
      else:
        ended = ended or time.monotonic()
        if time.monotonic() - ended > grace:
          tpu.gcloud.say(f"still running after the others have ended: {', '.join(running)}")
          return code or 1
  finally:
    logs.stop()


def begin(tpu, train_args):
  """Starts training unless this very training runs already; refuses to disturb another one."""
  here = [] if tpu.gcloud.dry_run else tpu.ask()
  active = [worker for worker in here if worker.state == "running"]
  if active and any(worker.run_id != run_id(train_args) for worker in active):
    raise UserError(
      f"another training runs on {tpu.name}; look with `logs {tpu.name}`, end it with "
      f"`delete {tpu.name}`, or use another name"
    )
  if active and len(active) == len(here):
    tpu.gcloud.say(f"this training runs already on {tpu.name}: following it")
    return
  tpu.start(train_args)
  tpu.gcloud.say(f"training is started on {tpu.name}; it goes on without this connection")


def run_once(tpu, train_args, *, detach):
  """Runs on what exists and is set up. Returns training's exit code."""
  tpu.wait()
  begin(tpu, train_args)
  if detach:
    return DONE
  return watch(tpu)


def run_until_done(tpu, train_args, workdir, *, create, install, max_failures, ask_again=True):
  """Creates, installs, runs; again after preemption or failure, until done or given up. Returns exit code.

  Raises Deleted.
  ask_again: whether a request that the service has given up is made once more.
  """
  attempts = restart.Attempts(max_failures, newest(tpu, workdir))
  installed = reached = False
  while True:
    try:
      condition, detail = tpu.condition()
      reached = True
      if condition == "failed" and not ask_again:
        print(f"error: the request for {tpu.name} was given up: {detail}", file=sys.stderr)
        return 1
      if condition in ("lost", "failed"):
        tpu.gcloud.say(f"{tpu.name}: {detail}")
        tpu.delete()
      if condition in ("lost", "failed", "missing"):
        installed = False
        create()
      tpu.wait()
      running = not tpu.gcloud.dry_run and any(worker.state == "running" for worker in tpu.ask())
      if not installed and not running:
        install()
      installed = True
      begin(tpu, train_args)
      code = watch(tpu)
    except Lost as error:
      print(f"{error}", file=sys.stderr)
      code = PREEMPTED
    except GcloudError as error:
      print(f"error: {error}", file=sys.stderr)
      if reached and isinstance(error, Unreachable):
        time.sleep(tpu.poll)
        continue
      code = 1
    verdict, why = attempts.after(code, newest(tpu, workdir))
    tpu.gcloud.say(why)
    if verdict is not None:
      return verdict
    time.sleep(tpu.poll)


def newest(tpu, workdir):
  """The newest checkpoint in a bucket, or None."""
  if not tpu.gcloud.dry_run:
    return restart.newest_checkpoint(workdir)
  tpu.gcloud.show(restart.list_checkpoints(workdir))
  return None
