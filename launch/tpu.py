"""One Cloud TPU: a queued resource and its slices, what runs on their workers, and how to make and end it.

What gcloud's ssh runs on the workers is one string by necessity: there, every piece that comes from outside
this file is quoted by shlex.
"""

import dataclasses
import hashlib
import json
import os
import re
import shlex
import time

from launch.gcloud import Everywhere, GcloudError, Unreachable

FOLDER = "zoo"  # in the home directory of every worker: venv/, configs/, data/, train.log, pid, id, exit_code

ENDED = {"SUSPENDING", "SUSPENDED", "DELETING"}  # states of a queued resource that never get better
GONE = {
  "PREEMPTED",
  "TERMINATED",
  "STOPPED",
  "STOPPING",
  "DELETING",
}  # states of a slice that never get better

# TPU VM images carry Python 3.10 (Ubuntu 22.04), which is too old: uv brings the one of constraints.txt.
INSTALL = """set -eu
cd "$HOME/{folder}"
PIP_BREAK_SYSTEM_PACKAGES=1 python3 -m pip install --quiet --user --upgrade uv
python3 -m uv venv --quiet --allow-existing --python 3.11 venv
python3 -m uv pip install --quiet --python venv/bin/python --reinstall-package attention_zoo {packages}
{data}
venv/bin/python -c 'import attention_zoo, jax; print("installed, with jax", jax.__version__)'"""

# Ends what may still run here (a process group that we started), then trains in a session of its own.
START = """set -eu
cd "$HOME/{folder}"
if [ -f pid ] && pgrep -g "$(cat pid)" -f attention_zoo >/dev/null; then
  kill -TERM -- "-$(cat pid)" || true
  for _ in $(seq {patience}); do pgrep -g "$(cat pid)" -f attention_zoo >/dev/null || break; sleep 1; done
  kill -KILL -- "-$(cat pid)" 2>/dev/null || true
fi
rm -f exit_code
echo {run_id} > id
setsid nohup bash -c {runner} attention_zoo {arguments} </dev/null >>train.log 2>&1 &
echo $! > pid
for _ in $(seq 100); do
  [ -f exit_code ] || pgrep -g "$(cat pid)" -f attention_zoo >/dev/null && break
  sleep 0.1
done"""

RUNNER = """trap : TERM
venv/bin/python -m attention_zoo.train "$@"
echo $? > exit_code.new
mv exit_code.new exit_code"""

# pgrep, not the pid alone: after a reboot of the VM the number may belong to somebody else.
ASK = """cd "$HOME/{folder}" 2>/dev/null || true
if [ -f exit_code ]; then state="exit $(cat exit_code)"
elif [ -f pid ] && pgrep -g "$(cat pid)" -f attention_zoo >/dev/null; then state="running -"
else state="absent -"
fi
echo "zoo-worker ${{HOSTNAME##*-w-}} $state $(cat id 2>/dev/null)" """

FOLLOW = """cd "$HOME/{folder}" && touch train.log
tail --pid="$(cat pid 2>/dev/null || echo 999999999)" -n {lines} -F train.log 2>/dev/null |
  sed -u "s/^/w-${{HOSTNAME##*-w-}} | /" """


class Lost(RuntimeError):
  """The TPU was taken away: preempted or failed. What is left of it keeps its name until it is deleted."""


class Deleted(RuntimeError):
  """Somebody else deleted the TPU: whoever asks for it again would spend what they wanted to save."""


@dataclasses.dataclass(frozen=True)
class Worker:
  """What one worker says of its training."""

  name: str
  state: str  # "running", "absent" (never started, or gone with a reboot) or "exit"
  code: int | None
  run_id: str


class Tpu:
  """A queued resource called `name`, with one slice called `name` or several called name-0, name-1, ..."""

  def __init__(self, gcloud, name, *, num_slices=1, poll=30):
    self.gcloud, self.name, self.poll = gcloud, name, poll
    self.nodes = [name] if num_slices == 1 else [f"{name}-{i}" for i in range(num_slices)]
    self.seen = False  # it was there to be used, and we have not deleted it since
    self.unconfirmed = False  # a creation was asked for and no listing has shown it yet
    self.pretended = "ready"  # what a dry run takes for granted

  # What exists.

  def listing(self):
    """Returns (queued resources, slices) of the zone, each {name: record}; ours have record["ours"] true."""
    try:
      resources, nodes = (
        {
          record["name"].rpartition("/")[2]: record
          for record in json.loads(self.gcloud.run(kind, "list", "--format=json", timeout=120) or "[]")
        }
        for kind in ("queued-resources", "tpu-vm")
      )
    except GcloudError as error:
      raise Unreachable(str(error)) from error
    for name, record in resources.items():
      record["ours"] = name == self.name
    for name, record in nodes.items():
      owner = record.get("queuedResource", "").rpartition("/")[2]
      record["ours"] = owner == self.name if owner else name in self.nodes
    if self.name in resources:
      self.unconfirmed = False
    return resources, nodes

  def condition(self):
    """Returns "missing", "waiting", "ready", "lost" or "failed", and details. Learns the slices' names.

    Raises Deleted when what was there in this run went by somebody's will: Google's preemption leaves the
    queued resource SUSPENDED, until it is deleted, and names a user as its initiator only if it was one.
    """
    resources, nodes = self.listing()
    if self.gcloud.dry_run:
      return self.pretended, ""
    ours = {name: record.get("state", "?") for name, record in sorted(nodes.items()) if record["ours"]}
    record = resources.get(self.name, {}).get("state", {})
    state = record.get("state", "?")
    by_user = state == "DELETING" or (state in ENDED and record.get("stateInitiator") == "USER")
    if self.seen and (self.name not in resources or by_user):
      raise Deleted(f"somebody has deleted {self.name}: not asking for it again")
    if self.name not in resources:
      return ("lost", f"slices without a queued resource: {ours}") if ours else ("missing", "")
    detail = ", ".join([state, *(f"{name} {at}" for name, at in ours.items())])
    if state == "FAILED":
      return "failed", f"{detail} {json.dumps(record.get('failedData', {}))}"
    if self.seen and state not in ENDED and "DELETING" in ours.values():
      return "waiting", detail  # for the queued resource to tell whether Google or somebody deletes the slice
    if state in ENDED or any(at in GONE for at in ours.values()):
      return "lost", detail
    self.seen = True
    if state == "ACTIVE" and ours and all(at == "READY" for at in ours.values()):
      self.nodes = sorted(ours, key=lambda name: (len(name), name))
      return "ready", detail
    return "waiting", detail

  # Life and death.

  def create(self, accelerator_type, runtime_version, *, spot, valid_until, extra):
    """Asks for the TPU; it comes when there is one. Raises GcloudError."""
    nodes = (
      [f"--node-id={self.name}"]
      if len(self.nodes) == 1
      else [f"--node-count={len(self.nodes)}", f"--node-prefix={self.name}"]
    )
    self.gcloud.say(
      f"asking for {self.name}: {len(self.nodes)} x {accelerator_type}, {'spot' if spot else 'on demand'}"
    )
    self.unconfirmed = not self.gcloud.dry_run
    self.gcloud.run(
      "queued-resources",
      "create",
      self.name,
      *nodes,
      f"--accelerator-type={accelerator_type}",
      f"--runtime-version={runtime_version}",
      *(["--spot"] if spot else []),
      *([f"--valid-until-duration={valid_until}"] if valid_until else []),
      *extra,
      "--quiet",
    )
    self.pretended = "ready"

  def wait(self):
    """Waits until all slices are ready, however long; raises Lost, Deleted or GcloudError if never."""
    shown, unseen = None, 0
    while True:
      condition, detail = self.condition()
      if condition == "ready":
        self.reach()
        self.gcloud.say(f"{self.name} is ready: {', '.join(self.nodes)}")
        return
      if condition == "failed":
        raise GcloudError(f"the request for {self.name} failed: {detail}")
      unseen += condition == "missing"  # a new one may take a moment to be listed
      if unseen > (5 if self.unconfirmed else 0):
        raise Deleted(f"{self.name} does not exist, or not any more: not asking for it again")
      if condition == "lost":
        raise Lost(f"{self.name} will not become ready: {detail}")
      if detail != shown:
        self.gcloud.say(f"waiting for {self.name}: {detail}")
        shown = detail
      time.sleep(self.poll)

  def reach(self, attempts=10):
    """Makes our folder on all workers; a new machine may need minutes to answer. Raises GcloudError."""
    for attempt in range(attempts):
      try:
        self.everywhere(f"mkdir -p {FOLDER}", timeout=300)
        return
      except GcloudError as error:
        if attempt == attempts - 1:
          raise
        self.gcloud.say(f"{self.name} does not answer yet: {error}")
        time.sleep(self.poll)

  def delete(self, attempts=5):
    """Deletes the queued resource and its slices, and looks that they are gone; raises GcloudError."""
    self.gcloud.say(f"deleting {self.name}")
    problem, self.seen = "", False
    for attempt in range(attempts):
      try:
        resources, nodes = self.listing()
        slices = [name for name, record in nodes.items() if record["ours"]]
        if self.name in resources or self.gcloud.dry_run:
          self.gcloud.run("queued-resources", "delete", self.name, "--force", "--quiet", timeout=1800)
        elif slices:
          for node in slices:
            self.gcloud.run("tpu-vm", "delete", node, "--quiet", timeout=1800)
        else:
          self.gcloud.say(f"{self.name} is deleted" if attempt else f"{self.name} does not exist")
          return
        if self.gcloud.dry_run:
          return
      except GcloudError as error:
        problem = f"; {error}"
      if attempt:
        time.sleep(self.poll)
    raise GcloudError(f"{self.name} may still exist after {attempts} attempts to delete it{problem}")

  # Work on the workers.

  def install(self, wheel, configs, constraints=None, data=None):
    """Copies wheel and configs to all workers and installs them there; raises GcloudError."""
    files = [str(path) for path in (wheel, configs, constraints) if path]
    for node in self.nodes:
      self.gcloud.run(
        "tpu-vm", "scp", *files, f"{node}:{FOLDER}/", "--recurse", "--worker=all", "--quiet", timeout=1800
      )
    packages = [f"./{os.path.basename(wheel)}[tpu,gcs]"]
    if constraints:
      packages += ["--constraint", os.path.basename(constraints)]
    copy = f"mkdir -p data && gcloud storage rsync --recursive {shlex.quote(data)} data" if data else ":"
    remote = INSTALL.format(folder=FOLDER, packages=shlex.join(packages), data=copy)
    self.everywhere(remote, timeout=3600, show=True)

  def start(self, train_args, patience=60):
    """Starts training on all workers, detached from this connection; ends first what ran there before."""
    self.everywhere(
      START.format(
        folder=FOLDER,
        run_id=run_id(train_args),
        runner=shlex.quote(RUNNER),
        arguments=shlex.join(train_args),
        patience=patience,
      ),
      timeout=300,
    )

  def ask(self):
    """Returns what every worker says of its training: a list of Worker. Raises GcloudError."""
    lines = self.everywhere(ASK.format(folder=FOLDER), timeout=180)
    if self.gcloud.dry_run:
      return [Worker(self.nodes[0], "exit", 0, "")]
    workers = []
    for node, line in lines:
      if match := re.match(r"zoo-worker (\S+) (running|absent|exit) (\d+|-) ?(\w*)$", line):
        code = int(match[3]) if match[2] == "exit" else None
        workers.append(Worker(f"{node} w-{match[1]}", match[2], code, match[4]))
    if not workers:
      raise GcloudError(f"no worker of {self.name} said anything that makes sense: {lines[-5:]}")
    return workers

  def follow(self, lines=20):
    """Shows the training log of all workers as it grows; returns the running Everywhere."""
    return Everywhere(self.gcloud, self.nodes, FOLLOW.format(folder=FOLDER, lines=lines), show=True)

  def everywhere(self, remote, *, timeout, show=False):
    return Everywhere(self.gcloud, self.nodes, remote, show=show).wait(timeout)


def run_id(train_args):
  """A short name for a training command, to tell whether what runs on a worker is what was asked for."""
  return hashlib.sha256(json.dumps(train_args).encode()).hexdigest()[:12]
