"""Stand-ins for what launching needs: a Slurm cluster of one machine, a Cloud TPU service, a trainer."""

import contextlib
import getpass
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys

import pytest

from tests.launch.launch_helpers import ROOT, Cloud, free_port, wait_for

SLURM_CONF = """\
ClusterName=test
SlurmctldHost=localhost
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={controller_port}
SlurmdPort={daemon_port}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
FirstJobId={first_job}
KillWait=60
SchedulerParameters=sched_interval=1,bf_interval=1
NodeName=localhost NodeHostname={host} CPUs=2 State=UNKNOWN
PartitionName=test Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@pytest.fixture(scope="session")
def slurm(tmp_path_factory):
  """A Slurm cluster of this machine: two CPUs, own keys, ports and state. Yields the environment for it."""
  path = os.environ["PATH"] + ":/usr/sbin"
  programs = {
    name: shutil.which(name, path=path) for name in ("munged", "slurmctld", "slurmd", "sbatch", "srun")
  }
  if missing := [name for name, program in programs.items() if program is None]:
    pytest.skip(f"needs {', '.join(missing)} (Debian: apt-get install slurm-wlm munge)")
  folder = tmp_path_factory.mktemp("slurm")
  (folder / "state").mkdir()
  (folder / "spool").mkdir()
  key = folder / "munge.key"
  key.write_bytes(os.urandom(1024))
  key.chmod(0o600)
  (folder / "slurm.conf").write_text(
    SLURM_CONF.format(
      user=getpass.getuser(),
      folder=folder,
      host=socket.gethostname().partition(".")[0],
      controller_port=free_port(),
      daemon_port=free_port(),
      first_job=os.getpid() % 4000 * 10 + 1,  # JAX makes its port from it: none shared with another test run
    )
  )
  env = {
    name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_", "XLA_"))
  }
  env |= {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": path}
  munge = [
    f"--{name}={folder}/munge.{end}"
    for name, end in (
      ("key-file", "key"),
      ("socket", "socket"),
      ("pid-file", "pid"),
      ("log-file", "log"),
      ("seed-file", "seed"),
    )
  ]
  daemons = []
  try:
    for command in (
      [programs["munged"], "--foreground", "--force", *munge],
      [programs["slurmctld"], "-D"],
      [programs["slurmd"], "-D"],
    ):
      with open(folder / f"{pathlib.Path(command[0]).name}.out", "w") as output:
        daemons.append(subprocess.Popen(command, env=env, stdout=output, stderr=subprocess.STDOUT))
      if len(daemons) == 1:
        wait_for("munged", lambda: (folder / "munge.socket").exists(), 10)
    sinfo = ["sinfo", "--noheader", "--format=%T"]
    wait_for(
      "an idle node",
      lambda: "idle" in subprocess.run(sinfo, env=env, capture_output=True, text=True).stdout,
      30,
    )
    yield env
    subprocess.run(["scancel", "--user", getpass.getuser()], env=env)
    squeue = ["squeue", "--noheader"]
    wait_for("jobs to end", lambda: not subprocess.run(squeue, env=env, capture_output=True).stdout, 30)
  finally:
    for daemon in reversed(daemons):  # munged last: the others speak through it
      daemon.terminate()
      try:
        daemon.wait(10)
      except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()


@pytest.fixture
def trainer(tmp_path):
  """Returns a function: program text -> directory where `python -m attention_zoo.train` is that program; what else the
  launchers take from the package is the real one's."""

  def write(program):
    package = tmp_path / "project" / "attention_zoo"
    package.mkdir(parents=True, exist_ok=True)
    (package / "__init__.py").write_text(f"__path__.append({str(ROOT / 'attention_zoo')!r})\n")
    (package / "train.py").write_text(program)
    return package.parent

  return write


# What runs on a worker of the stand-in: python3 knows as much of pip and uv as setting up needs, and makes a
# venv whose Python finds a stand-in trainer.
WORKER_PYTHON = """\
#!/bin/bash
echo "$*" >> "$HOME/python3.log"
case "$*" in
  "-m pip install "*uv) ;;
  "-m uv venv "*" venv")
    mkdir -p venv/bin
    printf '#!/bin/bash\\nPYTHONPATH={folder}/site exec {python} "$@"\\n' > venv/bin/python
    chmod +x venv/bin/python ;;
  "-m uv pip install "*"--python venv/bin/python"*".whl[tpu,gcs]"*)
    for word in "$@"; do
      case "$word" in *.whl\\[tpu,gcs\\]) test -f "${{word%\\[tpu,gcs\\]}}" || exit 1 ;; esac
    done ;;
  *) echo "python3: what is $*?" >&2; exit 1 ;;
esac
"""

# Counts steps, each a checkpoint, from the newest on; ends as --config.end=CODE@STEP,CODE@STEP,... says next.
WORKER_TRAIN = """\
import json, os, pathlib, signal, sys, time
flags = dict(a[2:].split("=", 1) for a in sys.argv[1:] if a.startswith("--") and "=" in a)
assert pathlib.Path(flags["config"]).is_file(), flags["config"]
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
folder = pathlib.Path(os.environ["FAKE_GCLOUD"], "gs", flags["workdir"].removeprefix("gs://"), "checkpoints")
folder.mkdir(parents=True, exist_ok=True)
pathlib.Path(os.environ["HOME"], "args.json").write_text(json.dumps(sys.argv[1:]))
step = max((int(p.name) for p in folder.iterdir()), default=0)
ends = [word.split("@") for word in flags.get("config.end", "0@8").split(",")]
code, end = next((pair for pair in ends if int(pair[1]) > step), ends[-1])
cloud = pathlib.Path(os.environ["FAKE_GCLOUD"])
with open(cloud / "starts", "a") as file:
  print(step, file=file)
# As real workers do, they meet before the first of them trains; not for ever, since one may have been taken away.
together, until = len(list((cloud / "workers").iterdir())), time.monotonic() + 5
while len((cloud / "starts").read_text().split()) % together and time.monotonic() < until:
  time.sleep(0.02)
print(f"starting at step {step}", flush=True)
while step < int(end) and not pathlib.Path(os.environ["FAKE_GCLOUD"], "finish").exists():
  time.sleep(float(flags.get("config.sleep", 0.05)))
  step += 1
  if "config.no_checkpoints" not in flags:
    (folder / str(step)).touch()
print(f"ending at step {step}", flush=True)
sys.exit(int(code))
"""


@pytest.fixture
def cloud(tmp_path, monkeypatch):
  """A stand-in Cloud TPU service with its `gcloud` on the PATH; nothing of it outlives the test."""
  folder = tmp_path / "cloud"
  for name in ("bin", "worker_bin", "workers", "gs", "site/attention_zoo"):
    (folder / name).mkdir(parents=True)
  (folder / "site/attention_zoo/__init__.py").touch()
  (folder / "site/attention_zoo/train.py").write_text(WORKER_TRAIN)
  (folder / "site/jax.py").write_text('__version__ = "0.0"\n')
  (folder / "worker_bin/python3").write_text(WORKER_PYTHON.format(folder=folder, python=sys.executable))
  (folder / "worker_bin/gcloud").write_text(f'#!/bin/bash\nexec {folder}/bin/gcloud "$@"\n')
  source = pathlib.Path(__file__).with_name("fake_gcloud.py").read_text()
  (folder / "bin/gcloud.py").write_text(source)
  # Like the real one, a shell script with Python as its child: whoever ends it has to end both.
  (folder / "bin/gcloud").write_text(
    f'#!/bin/bash\n{sys.executable} -S {folder}/bin/gcloud.py "$@"\nexit $?\n'
  )
  for program in ("worker_bin/python3", "worker_bin/gcloud", "bin/gcloud"):
    (folder / program).chmod(0o755)
  service = Cloud(folder)
  service.change(
    resources={},
    nodes={},
    pending=1,
    deleting=0,
    workers=2,
    preempt_at=[],
    reboot_at=[],
    faults=[],
    fails=False,
    calls=[],
  )
  monkeypatch.setenv("FAKE_GCLOUD", str(folder))
  monkeypatch.setenv("PATH", f"{folder}/bin:{os.environ['PATH']}")
  yield service
  for process in service.launchers:
    process.kill()
    process.communicate()
  for path in folder.glob("workers/*/zoo/pid"):
    with contextlib.suppress(ProcessLookupError, ValueError):
      os.killpg(int(path.read_text()), signal.SIGKILL)


@pytest.fixture
def wheel(tmp_path):
  path = tmp_path / "attention_zoo-0.1.0-py3-none-any.whl"
  path.touch()
  return f"--wheel={path}"
