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

What follows `--` goes to `python -m attention_zoo.train` on every worker as it stands. Training runs detached
from your connection; Ctrl-C only stops following it. Nothing is deleted unless you say so (delete,
--delete_after), but for the remains of a TPU that was taken away under --until_done. Every command that was
understood ends by naming what still exists in the zone and costs money. --dry_run prints the commands, each ready to
be pasted, and runs none.

Exit codes: 0 done; 1 gcloud failed, or a worker vanished; 2 bad input; 3 loss not finite; 4 somebody deleted
the TPU; 75 preempted (run again to resume); 129 SIGHUP; 130 Ctrl-C; 143 SIGTERM; otherwise training's own.
launch/README.md leads from quota to the first loss.
"""

import argparse
import functools
import pathlib
import re
import shlex
import shutil
import signal
import sys
import threading
import tomllib

from attention_zoo import files
from attention_zoo.errors import UserError
from launch import restart, tpu_run
from launch.gcloud import Gcloud, GcloudError, run, stop_all
from launch.restart import BAD_INPUT, DONE, PREEMPTED
from launch.tpu import Deleted, Lost, Tpu

ROOT = pathlib.Path(__file__).parents[1]
DELETED = 4  # exit code; not one of training's

# Beginning of the accelerator type -> runtime version (Cloud TPU's documentation, "TPU software versions").
RUNTIMES = {
  "v6e": "v2-alpha-tpuv6e",
  "v5p": "v2-alpha-tpuv5",
  "v5litepod": "v2-alpha-tpuv5-lite",
  "v4": "tpu-ubuntu2204-base",
  "v3": "tpu-ubuntu2204-base",
  "v2": "tpu-ubuntu2204-base",
}


def make_wheel(args, gcloud):
  """Returns the path of the wheel: the one given, or one built here from the sources."""
  if args.wheel:
    return args.wheel
  project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
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


def make_parser():
  parser = argparse.ArgumentParser(
    prog="python -m launch.cloud_tpu",
    description=__doc__,
    allow_abbrev=False,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  commands = parser.add_subparsers(
    dest="command", required=True, metavar="create|setup|run|logs|status|delete"
  )
  common = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
  common.add_argument(
    "name", metavar="NAME", help="name of the queued resource: small letters, digits, dashes"
  )
  common.add_argument("--zone", required=True, help="for example us-west4-a; where your quota is")
  common.add_argument("--project", help="Google Cloud project; gcloud's own setting if not given")
  common.add_argument(
    "--node_count",
    type=int,
    default=1,
    metavar="N",
    help="slices (multi-slice training: one mesh axis `replica` over them; %(default)s)",
  )
  common.add_argument(
    "--poll", type=float, default=30, metavar="SECONDS", help="between two looks (%(default)s)"
  )
  common.add_argument("--dry_run", action="store_true", help="print each command, run none")
  creating = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
  creating.add_argument("--accelerator_type", metavar="TYPE", help="v5litepod-16, v5p-8, v6e-8, v4-32, ...")
  creating.add_argument(
    "--runtime_version", metavar="VERSION", help="TPU software version; by default the one for TYPE"
  )
  creating.add_argument("--spot", action="store_true", help="cheaper, may be preempted at any time")
  creating.add_argument(
    "--valid_until", metavar="DURATION", help="give up queueing after this long, for example 6h"
  )
  creating.add_argument(
    "--create_flag",
    action="append",
    default=[],
    metavar="--FLAG=VALUE",
    help="further flag of `gcloud compute tpus queued-resources create`, may be repeated: "
    "--create_flag=--network=mine --create_flag=--reserved",
  )
  installing = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
  installing.add_argument(
    "--wheel", type=files.expand, metavar="FILE", help="install this wheel; built from the sources if not given"
  )
  installing.add_argument(
    "--configs", type=files.expand, default=str(ROOT / "configs"), metavar="DIR", help="a folder called configs, to be copied (%(default)s)"
  )
  installing.add_argument(
    "--data", metavar="gs://DIR", help="copied to data/ on each worker; train with --config.data.dir=data"
  )
  # What each command does, in its help.
  verbs = {
    "create": ([common, creating], "ask for the TPU and wait until it is ready"),
    "setup": ([common, installing], "copy wheel and configs to all workers and install there"),
    "run": ([common, creating, installing], "start training on all workers and follow its logs"),
    "logs": ([common], "follow the logs of all workers, with their names, until training ends"),
    "status": ([common], "what exists, what runs on every worker, the newest checkpoint"),
    "delete": ([common], "delete the queued resource and its slices, and check that they are gone"),
  }
  made = {
    name: commands.add_parser(name, parents=parents, help=text, description=text, allow_abbrev=False)
    for name, (parents, text) in verbs.items()
  }
  made["create"].add_argument(
    "--no_wait", action="store_true", help="do not wait: ask, and leave it in the queue"
  )
  made["status"].add_argument("--workdir", metavar="gs://DIR", help="also name the newest checkpoint in it")
  made["run"].add_argument(
    "--until_done",
    action="store_true",
    help="create and set up what is missing, and again after preemption, until training is done",
  )
  made["run"].add_argument(
    "--max_failures",
    type=int,
    default=3,
    metavar="N",
    help="give up after N failures in a row without a newer checkpoint (%(default)s)",
  )
  made["run"].add_argument("--detach", action="store_true", help="return as soon as training is started")
  made["run"].add_argument(
    "--delete_after",
    action="store_true",
    help="delete the TPU when training has ended, well or badly (not on Ctrl-C)",
  )
  return parser


def check(args, train_args, workdir):
  """Raises UserError for what can be seen to be wrong before anything is asked of gcloud."""
  if not re.fullmatch(r"[a-z]([a-z0-9-]{0,60}[a-z0-9])?", args.name):
    raise UserError(
      f"NAME {args.name!r}: small letters, digits and dashes, beginning with a letter, at most 62"
    )
  for flag in ("zone", "project"):
    value = getattr(args, flag)
    if value is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.:-]*", value):
      raise UserError(f"--{flag}={value!r} does not look like a {flag}")
  if args.node_count < 1 or args.poll < 0:
    raise UserError("--node_count must be at least 1 and --poll not negative")
  if args.command == "create" or (args.command == "run" and args.until_done):
    if not args.accelerator_type:
      raise UserError(
        "--accelerator_type=TYPE is needed, for example v5litepod-16 (see launch/README.md for sizes)"
      )
    family = re.fullmatch(r"(v\d+[a-z]*)-\d+", args.accelerator_type)
    if not family:
      raise UserError(
        f"--accelerator_type={args.accelerator_type!r} does not look like v5litepod-16, v5p-8 or v6e-8"
      )
    args.runtime_version = args.runtime_version or RUNTIMES.get(family[1])
    if not args.runtime_version:
      raise UserError(
        f"no runtime version known for {family[1]}: give --runtime_version (gcloud compute tpus tpu-vm "
        f"versions list --zone={args.zone})"
      )
    for extra in args.create_flag:
      if not extra.startswith("--"):
        raise UserError(f"--create_flag={extra!r} must look like --create_flag=--network=mine")
  if args.command == "run":
    restart.need_training(train_args)
    if args.max_failures < 1:
      raise UserError("--max_failures must be at least 1")
    if args.detach and (args.until_done or args.delete_after):
      raise UserError("--detach leaves training alone: it excludes --until_done and --delete_after")
  workdir = workdir or getattr(args, "workdir", None)  # status has it as a flag
  if workdir and not re.match(r"gs://[^/]+/.", workdir):
    raise UserError(
      f"--workdir={workdir} must be in a bucket, gs://BUCKET/DIR: the workers' disks are deleted with the "
      "TPU, and progress is read from here (gcloud storage buckets create gs://BUCKET --location=REGION)"
    )
  if args.command in ("setup", "run"):
    if args.wheel and not args.wheel.is_file():
      raise UserError(f"--wheel={args.wheel} is not a file")
    if not args.wheel and not (ROOT / "pyproject.toml").is_file():
      raise UserError(f"{ROOT} has no pyproject.toml to build a wheel from: give one with --wheel=FILE.whl")
    if not args.configs.is_dir() or args.configs.resolve().name != "configs":
      raise UserError(f"--configs={args.configs} must be a directory called configs: it is copied under its name")
    if args.data and not args.data.startswith("gs://"):
      raise UserError(
        f"--data={args.data} must be gs://...; copy it there first: gcloud storage cp -r DIR gs://BUCKET/"
      )
  if not args.dry_run and shutil.which("gcloud") is None:
    raise UserError(
      "gcloud is not on the PATH: install the Google Cloud CLI (https://cloud.google.com/sdk), or --dry_run"
    )


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
    args = make_parser().parse_args(own)
    check(args, train_args, workdir)
  except UserError as error:
    print(f"error: {error}", file=sys.stderr)
    return BAD_INPUT
  ending = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
  before = {number: signal.getsignal(number) for number in ending}
  for number in ending[1:]:
    if before[number] != signal.SIG_IGN:  # nohup stays nohup
      signal.signal(number, lambda number, _: sys.exit(128 + number))
  tpu = Tpu(
    Gcloud(args.zone, args.project, dry_run=args.dry_run),
    args.name,
    node_count=args.node_count,
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
  sys.exit(main())
