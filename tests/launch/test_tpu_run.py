"""What the states of a TPU and of its workers mean, without a gcloud."""

import types

import pytest

from launch import tpu_run
from launch.gcloud import Gcloud, GcloudError, Unreachable
from launch.tpu import Deleted, Tpu, Worker


def test_what_workers_say():
  said = [
    "zoo-worker 0 running - 012345abcdef",
    "zoo-worker 1 exit 75 99",
    "zoo-worker 2 absent - ",
    "SSH: noise",
  ]
  tpu = Tpu(Gcloud("here"), "zoo")
  tpu.everywhere = lambda *_, **__: [("zoo", line) for line in said]
  assert tpu.ask() == [
    Worker("zoo w-0", "running", None, "012345abcdef"),
    Worker("zoo w-1", "exit", 75, "99"),
    Worker("zoo w-2", "absent", None, ""),
  ]
  said = ["SSH: noise"]
  with pytest.raises(GcloudError, match="no worker of zoo"):
    tpu.ask()


def worker(code):
  state = code if isinstance(code, str) else "exit"
  return Worker("zoo w-0", state, None if isinstance(code, str) else code, "")


@pytest.mark.parametrize(
  ("codes", "one"),
  [
    ([0, 0], 0),
    ([2, 2], 2),
    ([3, 1], 3),
    ([75, 75], 75),
    ([75, 1], 75),
    ([75, 130], 130),
    ([130, 1], 130),
    ([1, 137], 137),
    ([0, 9], 9),
    (["running", "running"], None),
    (["running", 1], 1),
    (["absent", "absent"], 1),
    ([137, "absent"], 137),
    ([2, "absent"], 1),
    ([75, "absent"], 75),
    (["absent", "running"], 1),
    (["absent", 0], 1),
    ([2, 1], 1),
    ([2, 0], 1),
    ([137, 2, 2], 137),
  ],
)
def test_one_outcome_of_many_workers(codes, one):
  assert tpu_run.outcome([worker(code) for code in codes]) == one


def test_a_worker_that_never_ends_is_a_failure():
  """The others are done: were that a preemption, the next attempt could end in the same way, for ever."""
  nothing = lambda *_: None
  logs = types.SimpleNamespace(stop=nothing)
  tpu = types.SimpleNamespace(gcloud=types.SimpleNamespace(dry_run=False, say=nothing), name="zoo", poll=0)
  tpu.follow, tpu.condition = lambda: logs, lambda: ("ready", "")
  tpu.ask = lambda: [worker(0), worker("running")]
  assert tpu_run.watch(tpu, grace=0) == 1


@pytest.mark.parametrize(("before", "code"), [(0, 0), (9, 1)])
def test_an_outage_counts_only_where_nothing_was_ever_reached(monkeypatch, before, code):
  """Between two attempts nine looks fail; at the very beginning so many are too many."""
  conditions = iter([*["unreachable"] * before, "ready", *["unreachable"] * 9, "ready"])

  def condition():
    if (found := next(conditions)) == "unreachable":
      raise Unreachable("no network")
    return found, ""

  codes = iter([75, 0])
  monkeypatch.setattr(tpu_run, "watch", lambda tpu: next(codes))
  monkeypatch.setattr(tpu_run, "begin", lambda tpu, args: None)
  nothing = lambda *_: None
  gcloud = types.SimpleNamespace(dry_run=False, say=nothing)
  tpu = types.SimpleNamespace(gcloud=gcloud, name="zoo", poll=0, condition=condition, wait=nothing, ask=lambda: [])
  found = tpu_run.run_until_done(tpu, [], "/nowhere", create=nothing, install=nothing, max_failures=3)
  assert found == code


# State of the queued resource (None: not listed) and who began it, state of its slice; what that means at
# first sight, and after it was there to be used in the same run.
SIGHTS = [
  (None, None, None, "missing", "deleted"),
  (None, None, "DELETING", "lost", "deleted"),
  ("DELETING", None, "DELETING", "lost", "deleted"),
  ("SUSPENDED", "USER", None, "lost", "deleted"),
  ("SUSPENDING", "USER", "DELETING", "lost", "deleted"),
  ("SUSPENDING", "SERVICE", "DELETING", "lost", "lost"),
  ("SUSPENDED", None, "PREEMPTED", "lost", "lost"),
  ("ACTIVE", None, "PREEMPTED", "lost", "lost"),
  ("ACTIVE", None, "DELETING", "lost", "waiting"),  # the queued resource will tell
  ("FAILED", None, None, "failed", "failed"),
  ("ACTIVE", "USER", "READY", "ready", "ready"),
]


@pytest.mark.parametrize(("state", "initiator", "slice_", "first", "later"), SIGHTS)
def test_who_ended_it(monkeypatch, state, initiator, slice_, first, later):
  tpu = Tpu(Gcloud("here"), "zoo")
  active = {"zoo": {"state": {"state": "ACTIVE"}}}, {"zoo": {"state": "READY", "ours": True}}
  there = {"zoo": {"state": {"state": state, "stateInitiator": initiator}}} if state else {}
  found = there, {"zoo": {"state": slice_, "ours": True}} if slice_ else {}

  def look(listed):
    monkeypatch.setattr(tpu, "listing", lambda: listed)
    try:
      return tpu.condition()[0]
    except Deleted:
      return "deleted"

  assert (look(found), look(active), look(found)) == (first, "ready", later)
  look(({}, {})), tpu.delete()
  assert look(({}, {})) == "missing"  # it was we who deleted it


def test_what_was_granted_and_is_never_listed_is_not_asked_for_again(monkeypatch):
  tpu = Tpu(Gcloud("here"), "zoo", poll=0)
  monkeypatch.setattr(tpu, "listing", lambda: ({}, {}))
  tpu.unconfirmed = True
  with pytest.raises(Deleted, match="not any more"):
    tpu.wait()
