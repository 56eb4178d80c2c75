"""Trains on Cloud TPU: asks for TPUs, installs, runs, follows, recovers from preemption, deletes.

The whole way in one command; it recreates the TPU after preemption and resumes, until training is done:

  python -m launch.cloud_tpu run base --zone=us-west4-a --accelerator_type=v5litepod-16 --spot --until_done \\
      --delete_after -- --config=configs/transformer_base.py --workdir=gs://BUCKET/base

The same in steps (NAME is yours to choose: the queued resource and its slices are called by it):

  python -m launch.cloud_tpu create NAME --zone=ZONE --accelerator_type=v5litepod-16
  python -m launch.cloud_tpu setup  NAME --zone=ZONE
  python -m launch.cloud_tpu run    NAME --zone=ZONE -- --config=FILE --workdir=gs://BUCKET/base
  python -m launch.cloud_tpu logs   NAME --zone=ZONE
  python -m launch.cloud_tpu status NAME --zone=ZONE
  python -m launch.cloud_tpu delete NAME --zone=ZONE

What follows `--` goes to `python -m attention_zoo.train` on every worker as it stands. Before anything is asked for,
and by --dry_run, it is checked: flags, config file, fields, and whether mesh and batch fit the TPU (where JAX is
installed; `create` checks it too if you append it). Training runs detached from your connection; Ctrl-C only stops
following it. Nothing is deleted unless you say so (delete, --delete_after), but for the remains of a TPU that was taken
away under --until_done. Every command that was understood ends by naming what still exists in the zone and costs money.
--dry_run prints the commands, each ready to be pasted, and runs none.

Exit codes: 0 done; 1 gcloud failed, or a worker vanished; 2 bad input; 3 loss not finite; 4 somebody deleted
the TPU; 75 preempted (run again to resume); 129 SIGHUP; 130 Ctrl-C; 143 SIGTERM; otherwise training's own.
launch/README.md leads from quota to the first loss.
"""

import functools
import shlex
import signal
import sys
import threading
import tomllib

from attention_zoo.errors import UserError
from launch import restart, tpu_run
from launch.cloud_tpu_flags import ROOT, check, make_parser
from launch.gcloud import Gcloud, GcloudError, run, stop_all
from launch.restart import BAD_INPUT, DONE, PREEMPTED
from launch.tpu import Deleted, Lost, Tpu

DELETED = 4  # exit code; not one of training's

def make_wheel(args, gcloud):
  """Returns the path of the wheel: the one given, or one built here from the sources."""
  if args.wheel:
    return args.wheel
  project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
  command = [sys.executable, "-m", "pip", "wheel", "--no-deps", f"--wheel-dir={ROOT / 'dist'}", str(ROOT)]
  if gcloud.dry_run:
    gcloud.show(command)
  else:
    gcloud.say("building the wheel")
    run(command, timeout=600)
  return ROOT / "dist" / f"{project['name']}-{project['version']}-py3-none-any.whl"


def create_from(args, tpu):
  tpu.create(
    args.accelerator_type,
    args.runtime_version,
    spot=args.spot,
    valid_until=args.valid_until,
    extra=args.create_flag,
  )


def install_from(args, tpu, wheel):
  constraints = ROOT / "constraints.txt"
  tpu.install(wheel, args.configs.resolve(), constraints if constraints.is_file() else None, args.data)


def status(tpu, workdir):
  """Prints state, slices, what every worker does, and the newest checkpoint."""
  condition, detail = tpu.condition()
  tpu.gcloud.say(f"{tpu.name}: {condition}{detail and ', '}{detail}")
  if condition == "ready":
    for worker in tpu.ask():
      what = (
        f"training ended with exit code {worker.code}"
        if worker.state == "exit"
        else {"running": "training runs", "absent": "training does not run"}[worker.state]
      )
      tpu.gcloud.say(f"{worker.name}: {what}")
  if workdir:
    tpu.gcloud.say(f"newest checkpoint in {workdir}: {tpu_run.newest(tpu, workdir)}")
  return DONE


def report(tpu):
  """Prints what exists in the zone and what of it costs money; the last words of every command."""
  again = f"python -m launch.cloud_tpu delete {tpu.name} {shlex.join(tpu.gcloud.place)}"
  try:
    resources, nodes = tpu.listing()
  except GcloudError as error:
    tpu.gcloud.say(
      f"COULD NOT FIND OUT what exists: {error}\nTake it that {tpu.name} exists and costs money.\n"
      f"  see:    {shlex.join(tpu.gcloud.command('queued-resources', 'list'))}\n  delete: {again}"
    )
    return
  if tpu.gcloud.dry_run:
    return
  lines = []
  for name, record in sorted(resources.items()):
    state = record.get("state", {}).get("state", "?")
    cost = {
      "SUSPENDED": "costs nothing, but holds its name",
      "FAILED": "costs nothing, but holds its name",
      "CREATING": "WILL COST MONEY once granted",
      "ACCEPTED": "WILL COST MONEY once granted",
      "WAITING_FOR_RESOURCES": "WILL COST MONEY once granted",
    }.get(state, "COSTS MONEY")
    lines.append(
      f"  queued resource {name}: {state}, {cost}" + ("" if record["ours"] else " (not of this command)")
    )
  for name, record in sorted(nodes.items()):
    state = record.get("state", "?")
    cost = "should cost nothing" if state in ("PREEMPTED", "TERMINATED", "STOPPED") else "COSTS MONEY"
    kind = record.get("acceleratorType", "").rpartition("/")[2]
    lines.append(
      f"  slice {name} {kind}: {state}, {cost}" + ("" if record["ours"] else " (not of this command)")
    )
  if tpu.unconfirmed:
    lines.append(
      f"  queued resource {tpu.name}: asked for, not listed; it MAY STILL APPEAR AND COST MONEY: look again"
    )
  if any("not of this" not in line for line in lines):
    lines.append(f"  delete with: {again}")
  head = (
    f"what exists in {tpu.gcloud.zone}:"
    if lines
    else f"nothing exists in {tpu.gcloud.zone}: no TPU costs money there"
  )
  tpu.gcloud.say("\n".join([head, *lines]))


def act(args, tpu, train_args, workdir):
  """Carries out one command; returns its exit code."""
  until_done = args.command == "run" and args.until_done
  if args.command in ("create", "delete") or until_done:
    tpu.pretended = "missing"
  elif tpu.condition()[0] == "missing" and args.command != "status":
    raise UserError(f"{tpu.name} does not exist in {args.zone}: `create` it first, or `run --until_done`")
  if args.command == "create":
    if tpu.condition()[0] == "missing":
      create_from(args, tpu)
    else:
      tpu.gcloud.say(f"{tpu.name} exists already")
    if not args.no_wait:
      tpu.wait()
  elif args.command == "setup":
    wheel = make_wheel(args, tpu.gcloud)
    tpu.wait()
    install_from(args, tpu, wheel)
  elif args.command == "run":
    try:
      if until_done:
        wheel = make_wheel(args, tpu.gcloud)  # first: what goes wrong here costs nothing yet
        code = tpu_run.run_until_done(
          tpu,
          train_args,
          workdir,
          create=functools.partial(create_from, args, tpu),
          install=functools.partial(install_from, args, tpu, wheel),
          max_failures=args.max_failures,
          ask_again=not args.valid_until,
        )
      else:
        code = tpu_run.run_once(tpu, train_args, detach=args.detach)
    except (Lost, Deleted):  # also the end of training; slices may be left
      if args.delete_after:
        tpu.delete()
      raise
    if args.delete_after:
      tpu.delete()
    return code
  elif args.command == "logs":
    tpu.follow().wait(timeout=threading.TIMEOUT_MAX)
  elif args.command == "status":
    return status(tpu, args.workdir)
  elif args.command == "delete":
    tpu.delete()
  return DONE


def main(argv=None):
  try:
    own, train_args, workdir = restart.split_command(sys.argv[1:] if argv is None else argv)
    args = make_parser(__doc__).parse_args(own)
    unseen = check(args, train_args, workdir)
  except UserError as error:
    print(f"error: {error}", file=sys.stderr)
    return BAD_INPUT
  ending = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
  before = {number: signal.getsignal(number) for number in ending}
  for number in ending[1:]:
    if before[number] != signal.SIG_IGN:  # nohup stays nohup
      signal.signal(number, lambda number, _: sys.exit(128 + number))
  gcloud = Gcloud(args.zone, args.project, dry_run=args.dry_run)
  if unseen:
    gcloud.say(unseen)
  tpu = Tpu(
    gcloud,
    args.name,
    num_slices=args.num_slices,
    poll=args.poll,
  )
  try:
    return act(args, tpu, train_args, workdir)
  except UserError as error:
    print(f"error: {error}", file=sys.stderr)
    return BAD_INPUT
  except (Lost, Deleted) as error:
    print(f"{error}", file=sys.stderr)
    return PREEMPTED if isinstance(error, Lost) else DELETED
  except GcloudError as error:
    print(f"error: {error}", file=sys.stderr)
    return 1
  except KeyboardInterrupt:
    print("stopped by Ctrl-C; what was started on the TPU goes on", file=sys.stderr)
    return 130
  finally:
    for number in ending:  # the last words come, however impatient the user
      signal.signal(number, signal.SIG_IGN)
    stop_all()
    report(tpu)
    for number, handler in before.items():
      signal.signal(number, handler)


if __name__ == "__main__":
  restart.speak_utf8()
  sys.exit(main())
