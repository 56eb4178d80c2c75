import json
import os

import pytest

from attention_zoo.training import checksums

METADATA = {"custom_metadata": {"step": 3}, "item_handlers": {}, "commit_timestamp_nsecs": None}


def fill(directory):
  """Something like a checkpoint, with its checksums."""
  for name, content in {"params/d/x": b"hello", "params/manifest": b"there", "rest/manifest": b"!"}.items():
    (directory / name).parent.mkdir(parents=True, exist_ok=True)
    (directory / name).write_bytes(content)
  (directory / checksums.METADATA).write_text(json.dumps(METADATA))
  checksums.write(directory)
  # What Orbax does last.
  (directory / checksums.METADATA).write_text(json.dumps(METADATA | {"commit_timestamp_nsecs": 123}))
  (directory / "commit_success.txt").write_text("yes")
  return directory


@pytest.fixture
def saved(tmp_path):
  return fill(tmp_path / "3")


def test_whole(saved):
  assert checksums.damage(saved) == checksums.damage(saved, "params") == ""
  (saved / "notes.txt").write_text("read by nobody")
  (saved / "params" / ".nfs0001").write_text("left by the file system")
  assert not checksums.damage(saved)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (lambda sums: {}, "lists no file of it"),
    (lambda sums: [], "is not a list of checksums"),
    (lambda sums: list(sums.items()), "is not a list of checksums"),
    (lambda sums: sums | {"params/d/x": 5}, "is not a list of checksums"),
    (lambda sums: sums | {"params/d/x": [5, "5"]}, "is not a list of checksums"),
    (lambda sums: sums | {"params/d/x": [-1, 0]}, "params/d/x is not as it was written"),
    (lambda sums: {name: pair for name, pair in sums.items() if name != "params/d/x"}, "params/d/x is not listed"),
    (lambda sums: {name: pair for name, pair in sums.items() if "/" not in name}, "lists no file of it"),
    (lambda sums: sums | {"params/more": [1, 1]}, "params/more is missing"),
    (lambda sums: sums | {"../outside": [0, 0]}, "../outside is missing"),
    (lambda sums: sums | {"/dev/zero": [0, 0]}, "/dev/zero is missing"),
  ],
)
def test_lists_that_cannot_be_relied_on(saved, change, message):
  (saved.parent / "outside").touch()
  path = saved / checksums.CHECKSUMS
  path.write_text(json.dumps(change(json.loads(path.read_text()))))
  assert message in checksums.damage(saved)


@pytest.mark.parametrize("content", ["", "{", "\udcff", "[" * 100_000, "{\"a\":" * 100_000])
def test_a_list_that_is_no_json(saved, content):
  (saved / checksums.CHECKSUMS).write_bytes(content.encode(errors="surrogateescape"))
  assert "checksums.json cannot be read" in checksums.damage(saved)


def test_files(saved):
  (saved / "rest" / "manifest").write_bytes(b"?")
  assert checksums.damage(saved) == "rest/manifest is not as it was written"
  assert not checksums.damage(saved, "params")
  (saved / "params" / "d" / "x").write_bytes(b"hello" * 100)
  assert checksums.damage(saved, "params") == "params/d/x is not as it was written"
  (saved / "params" / "d" / "x").unlink()
  assert checksums.damage(saved, "params") == "params/d/x is missing"
  (saved / checksums.CHECKSUMS).unlink()
  assert checksums.damage(saved) == "checksums.json is missing"


def test_only_regular_files_are_opened(saved):
  path = saved / "params" / "d" / "x"
  for make in (os.mkfifo, lambda path: path.symlink_to("/dev/zero"), lambda path: path.symlink_to("../manifest")):
    path.unlink()
    make(path)
    assert checksums.damage(saved) == "params/d/x is not a regular file"
  path.unlink()
  path.parent.rmdir()
  path.parent.symlink_to(saved)
  assert checksums.damage(saved) == "params/d is not a regular file"


def test_the_metadata_is_covered(saved):
  path = saved / checksums.METADATA
  path.write_text(json.dumps(METADATA | {"custom_metadata": {"step": 4}}))
  assert checksums.damage(saved, "params") == "_CHECKPOINT_METADATA is not as it was written"
  path.write_text("[]")
  assert "it is no JSON object" in checksums.damage(saved)
  path.unlink()
  assert checksums.damage(saved) == "_CHECKPOINT_METADATA is missing"


def test_the_list_of_an_earlier_version(saved):
  """It leaves the metadata out."""
  path = saved / checksums.CHECKSUMS
  sums = json.loads(path.read_text())
  del sums[checksums.METADATA]
  path.write_text(json.dumps(sums))
  assert not checksums.damage(saved)
  (saved / checksums.METADATA).write_text("{")
  assert "_CHECKPOINT_METADATA cannot be read" in checksums.damage(saved)


@pytest.fixture
def bucket(monkeypatch):
  """gs:// in memory."""
  from etils import epath
  from etils.epath import backend
  from fsspec.implementations.memory import MemoryFileSystem
  from fsspec.registry import _registry

  class Memory(MemoryFileSystem):
    protocol = ("gcs", "gs")
    cachable = False
    store, pseudo_dirs = {}, [""]

    @classmethod
    def _strip_protocol(cls, path):
      return MemoryFileSystem._strip_protocol(str(path).removeprefix("gcs://").removeprefix("gs://"))

  monkeypatch.setitem(_registry, "gs", Memory)
  monkeypatch.setattr(backend.fsspec_backend, "_get_filesystem", lambda name: Memory())
  return epath.Path("gs://bucket/run/checkpoints/3")


def test_a_bucket(bucket):
  fill(bucket)
  assert not checksums.damage(bucket)
  (bucket / "params" / "d" / "x").write_bytes(b"hellO")
  assert checksums.damage(bucket) == "params/d/x is not as it was written"
  (bucket / "params" / "d" / "x").unlink()
  assert checksums.damage(bucket) == "params/d/x is missing"
  (bucket / checksums.CHECKSUMS).unlink()
  assert checksums.damage(bucket) == ""  # saved by an earlier version
  assert checksums.damage(bucket.parent / "4") == "checksums.json is missing"
