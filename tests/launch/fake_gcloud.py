"""Stands in for `gcloud` in tests: Cloud TPU queued resources, ssh, scp and storage, in a directory.

$FAKE_GCLOUD/state.json holds what exists and what shall happen. Workers are directories; "ssh" runs the
command in bash with such a directory as home. Only flags that the real commands document are taken. Knobs:
  pending: how many listings a new resource waits and is provisioned; workers: machines per slice;
  deleting: seconds that each half of a deletion takes, the slices and then the resource;
  preempt_at: checkpoint numbers at which the TPU is taken away; reboot_at: ... at which its machines restart;
  faults: [{"match": words of the command, "skip": n times, "times": n, "text": ..., "hang": seconds,
            "after": true to do it all the same}]
"""

import argparse
import contextlib
import fcntl
import json
import os
import pathlib
import signal
import sys
import time

FOLDER = pathlib.Path(os.environ["FAKE_GCLOUD"])


@contextlib.contextmanager
def state():
  """The state under a lock; what was changed is written back."""
  with open(FOLDER / "lock", "w") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    content = json.loads((FOLDER / "state.json").read_text())
    try:
      yield content
    finally:
      (FOLDER / "new.json").write_text(json.dumps(content, indent=1))
      os.replace(FOLDER / "new.json", FOLDER / "state.json")


def fail(text, code=1):
  print(f"ERROR: (gcloud) {text}", file=sys.stderr)
  sys.exit(code)


def homes(node):
  return sorted((FOLDER / "workers").glob(f"{node}+*"))


def kill_workers(node):
  for home in homes(node):
    with contextlib.suppress(FileNotFoundError, ProcessLookupError, ValueError):
      os.killpg(int((home / "zoo" / "pid").read_text()), signal.SIGKILL)


def newest_checkpoint():
  return max((int(path.name) for path in (FOLDER / "gs").glob("**/checkpoints/*")), default=0)


def advance(content):
  """What happens by itself between two looks: queueing, preemption, reboots."""
  for name, resource in content["resources"].items():
    if resource["state"] == "WAITING_FOR_RESOURCES" and resource["spec"]["fails"]:
      resource["state"] = "FAILED"
    resource["age"] += 1
    pending = content["pending"]
    if resource["age"] > pending and resource["state"] == "WAITING_FOR_RESOURCES":
      resource["state"] = "PROVISIONING"
      for node in resource["spec"]["nodes"]:
        content["nodes"][node] = {"state": "CREATING", "owner": name, "type": resource["spec"]["type"]}
        for i in range(content["workers"]):
          (FOLDER / "workers" / f"{node}+{i}").mkdir(parents=True)
    elif resource["age"] > 2 * pending and resource["state"] == "PROVISIONING":
      resource["state"] = "ACTIVE"
      for node in resource["spec"]["nodes"]:
        content["nodes"][node]["state"] = "READY"
    elif resource["state"] == "ACTIVE":
      if content["preempt_at"] and newest_checkpoint() >= content["preempt_at"][0]:
        content["preempt_at"].pop(0)
        resource["state"] = "SUSPENDED"
        for node in resource["spec"]["nodes"]:
          kill_workers(node)
          content["nodes"][node]["state"] = "PREEMPTED"
      if content["reboot_at"] and newest_checkpoint() >= content["reboot_at"][0]:
        content["reboot_at"].pop(0)
        for node in resource["spec"]["nodes"]:
          kill_workers(node)


def create(args):
  with state() as content:
    if args.name in content["resources"]:
      fail(f"ALREADY_EXISTS: {args.name}")
    if bool(args.node_id) == bool(args.node_count):
      fail("exactly one of --node-id, --node-count")
    nodes = [args.node_id] if args.node_id else [f"{args.node_prefix}-{i}" for i in range(args.node_count)]
    content["resources"][args.name] = {
      "state": "WAITING_FOR_RESOURCES",
      "age": 0,
      "spec": {
        "nodes": nodes,
        "type": args.accelerator_type,
        "runtime": args.runtime_version,
        "spot": args.spot,
        "network": args.network,
        "valid_until": args.valid_until_duration,
        "fails": content["fails"],
      },
    }


def delete(args):
  with state() as content:
    resource = content["resources"].get(args.name) or fail(f"NOT_FOUND: {args.name}")
    nodes = [node for node in resource["spec"]["nodes"] if node in content["nodes"]]
    if nodes and not args.force:
      fail("FAILED_PRECONDITION: the resource has nodes; use --force")
    for node in nodes:
      kill_workers(node)
      content["nodes"][node]["state"] = "DELETING"
  time.sleep(content["deleting"])
  with state() as content:
    content["resources"][args.name]["state"] = "DELETING"
  time.sleep(content["deleting"])
  with state() as content:
    for node in nodes:
      remove_node(content, node)
    del content["resources"][args.name]


def remove_node(content, node):
  import shutil  # here and below: most calls need none of it, and there are many

  kill_workers(node)
  for home in homes(node):
    shutil.rmtree(home, ignore_errors=True)
  del content["nodes"][node]


def list_resources(args):
  with state() as content:
    advance(content)
    print(
      json.dumps(
        [
          {
            "name": f"projects/p/locations/{args.zone}/queuedResources/{name}",
            "state": {"state": resource["state"]},
          }
          for name, resource in content["resources"].items()
        ]
      )
    )


def list_nodes(args):
  with state() as content:
    print(
      json.dumps(
        [
          {
            "name": f"projects/p/locations/{args.zone}/nodes/{name}",
            "state": node["state"],
            "acceleratorType": node["type"],
            "queuedResource": f"projects/p/locations/{args.zone}/queuedResources/{node['owner']}",
          }
          for name, node in content["nodes"].items()
        ]
      )
    )


def delete_node(args):
  with state() as content:
    remove_node(content, args.name)


def need_ready(node):
  with state() as content:
    if content["nodes"].get(node, {}).get("state") != "READY":
      fail(f"cannot connect to {node}", 255)


def ssh(args):
  import subprocess

  need_ready(args.name)
  if args.worker != "all":
    fail("the tests know --worker=all only")
  processes = []
  for i, home in enumerate(homes(args.name)):
    env = {
      "HOME": str(home),
      "HOSTNAME": f"t1v-n-1234-w-{i}",
      "PATH": f"{FOLDER}/worker_bin:/usr/bin:/bin",
      "FAKE_GCLOUD": str(FOLDER),
    }
    command = ["bash", "-c", args.command]
    processes.append(subprocess.Popen(command, cwd=home, env=env, stdin=subprocess.DEVNULL, process_group=0))
  signal.signal(signal.SIGTERM, lambda *_: sys.exit(255))
  try:
    code = max(process.wait() for process in processes)
  finally:
    for process in processes:  # the end of a connection takes with it what was not detached
      with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
  sys.exit(code)


def scp(args):
  import subprocess

  *sources, target = args.files
  node, _, path = target.partition(":")
  need_ready(node)
  for home in homes(node):
    for source in sources:
      if pathlib.Path(source).is_dir() and not args.recurse:
        fail(f"{source} is a directory; use --recurse")
      subprocess.run(["cp", "-r", source, str(home / path)], check=True)


def storage(args):
  import shutil

  mark = "/*/commit_success.txt"  # which Orbax leaves in a bucket; here the name alone says that one is complete
  bucket = FOLDER / "gs" / args.source.removeprefix("gs://").removesuffix(mark)
  if not bucket.is_dir():
    fail("One or more URLs matched no objects.")
  if args.verb == "ls":
    for path in sorted(bucket.iterdir()):
      if not args.source.endswith(mark):
        print(f"gs://{path.relative_to(FOLDER / 'gs')}{'/' if path.is_dir() else ''}")
      elif path.name.isdecimal():
        print(f"gs://{path.relative_to(FOLDER / 'gs')}/{mark.rpartition('/')[2]}")
  else:
    shutil.copytree(bucket, args.target, dirs_exist_ok=True)


def make_parser():
  parser = argparse.ArgumentParser(allow_abbrev=False)
  groups = parser.add_subparsers(required=True)
  tpus = (
    groups.add_parser("compute")
    .add_subparsers(required=True)
    .add_parser("tpus")
    .add_subparsers(required=True)
  )
  place = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
  place.add_argument("--zone", required=True)
  place.add_argument("--project")
  place.add_argument("--quiet", action="store_true")

  def verb(group, name, function, *flags, positional="name"):
    command = group.add_parser(name, parents=[place], allow_abbrev=False)
    if positional:
      command.add_argument(positional, nargs="+" if positional == "files" else None)
    for flag in flags:
      command.add_argument(
        flag, **({"action": "store_true"} if flag in ("--spot", "--force", "--recurse") else {})
      )
    command.set_defaults(function=function)
    return command

  resources = tpus.add_parser("queued-resources").add_subparsers(required=True)
  verb(
    resources,
    "create",
    create,
    "--node-id",
    "--node-prefix",
    "--accelerator-type",
    "--runtime-version",
    "--spot",
    "--valid-until-duration",
    "--network",
  ).add_argument("--node-count", type=int)
  verb(resources, "delete", delete, "--force")
  verb(resources, "list", list_resources, "--format", positional=None)
  machines = tpus.add_parser("tpu-vm").add_subparsers(required=True)
  verb(machines, "list", list_nodes, "--format", positional=None)
  verb(machines, "delete", delete_node)
  verb(machines, "ssh", ssh, "--worker", "--command")
  verb(machines, "scp", scp, "--worker", "--recurse", positional="files")
  files = groups.add_parser("storage").add_subparsers(required=True, dest="verb")
  files.add_parser("ls").add_argument("source")
  rsync = files.add_parser("rsync")
  rsync.add_argument("source")
  rsync.add_argument("target")
  rsync.add_argument("--recursive", action="store_true")
  for command in files.choices.values():
    command.set_defaults(function=storage)
  return parser


def fault():
  """The fault that is due for this command, if any; counts it down."""
  line = " ".join(sys.argv[1:])
  with state() as content:
    content["calls"].append(sys.argv[1:])
    for item in content["faults"]:
      if item["times"] and item["match"] in line:
        key = "skip" if item.get("skip") else "times"
        item[key] -= 1
        return item if key == "times" else None
  return None


if __name__ == "__main__":
  due = fault()
  if due and due.get("hang"):
    time.sleep(due["hang"])
  arguments = make_parser().parse_args()
  if not due or due.get("after"):
    arguments.function(arguments)
  if due and "hang" not in due:
    fail(due.get("text", "UNAVAILABLE: try again later"))
