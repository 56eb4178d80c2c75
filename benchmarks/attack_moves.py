"""What benchmarks/attack.py does to the copy of a run: accidents to its files,
and folders that somebody made with intent.

`corrupt` harms one file. `HOSTILE` makes a folder wrong whose checksums fit, because the sender can compute them too.
"""

import contextlib
import hashlib
import inspect
import json
import os
import pathlib
import shutil
import socket
import stat

import numpy as np

# Accidents


def kind_of(name) -> str:
  first = name.split("/")[0]
  return first + "/" if "/" in name else first


def files_of(run) -> dict[str, list[pathlib.Path]]:
  """The files of a run by kind."""
  found = {}
  for path in sorted(run.rglob("*")):
    if path.is_file():
      found.setdefault(kind_of(str(path.relative_to(run))), []).append(path)
  return found


def flip(rng, data):
  data[rng.integers(len(data))] ^= 1 << rng.integers(8)
  return data


def truncate(rng, data):
  return data[: rng.integers(len(data))]


def empty(rng, data):
  return b""


def double(rng, data):
  return data * 2


def garbage(rng, data):
  return rng.bytes(len(data))


def digit(rng, data):
  """Another digit in the place of one: what was a number stays one."""
  places = [i for i, byte in enumerate(data) if 48 <= byte < 58] or [int(rng.integers(len(data)))]
  data[places[rng.integers(len(places))]] = 48 + rng.integers(10)
  return data


def delete(rng, path, others):
  path.unlink()


def exchange(rng, path, others):
  other = others[rng.integers(len(others))]
  mine, theirs = path.read_bytes(), other.read_bytes()
  path.write_bytes(theirs)
  other.write_bytes(mine)


def forbid(rng, path, others):
  path.chmod(0)


HARMS = (flip, flip, flip, truncate, empty, double, garbage, digit, delete, exchange, forbid)
KINDS = (
  "config.json", "tokenizer.model", "text.json", "versions.json", "metrics.jsonl", "data/", "checkpoints/", "average/",
)  # fmt: skip


def corrupt(rng, run, kind) -> str:
  """Harms one file of a kind; returns what was done to which."""
  everything = files_of(run)
  mine = everything.get(kind) or everything["config.json"]
  path, harm = mine[rng.integers(len(mine))], HARMS[rng.integers(len(HARMS))]
  if harm in (delete, exchange, forbid):
    harm(rng, path, mine if len(mine) > 1 else sum(everything.values(), []))
  else:
    path.write_bytes(harm(rng, bytearray(path.read_bytes() or b"0")))
  return f"{harm.__name__} {path.relative_to(run)}"


# Intent


def sum_up(directory) -> None:
  """Checksums that fit; the old ones where Orbax's own metadata, which they are taken of, are no JSON any more."""
  from attention_zoo.training import checksums

  with contextlib.suppress(Exception):
    checksums.write(directory)


def seal(run, path, before) -> None:
  """Makes the run's notes about a file fit its new content. before: the old content."""
  for name in ("average", "checkpoints"):
    if path.is_relative_to(run / name):
      directory = run / "/".join(path.relative_to(run).parts[: 1 if name == "average" else 2])
      sum_up(directory)
      return
  if path.name == "config.json":
    store_config(run, path)
  old, new = (hashlib.sha256(content).hexdigest() for content in (before, path.read_bytes()))
  for notes in (*run.glob("*.json"), path.with_name("meta.json")):
    if notes != path and notes.is_file():
      notes.write_bytes(notes.read_bytes().replace(old.encode(), new.encode()))
      said = json.loads(notes.read_text())
      if said.pop("checksum", None):
        checksum = hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
        notes.write_text(json.dumps(said | {"checksum": checksum}))


def store_config(run, path) -> None:
  """Writes the config of config.json into the checkpoints too, which say whose they are."""
  with contextlib.suppress(ValueError, RecursionError):  # it is no JSON any more
    config = json.loads(path.read_text())
    for note in (*run.glob("average/average.json"), *run.glob("checkpoints/*/_CHECKPOINT_METADATA")):
      said = json.loads(note.read_text())
      (said if note.name == "average.json" else said["custom_metadata"])["config"] = config
      note.write_text(json.dumps(said))
      sum_up(note.parent)


def rewrite(run, path, content) -> None:
  before = path.read_bytes()
  path.write_bytes(content)
  seal(run, path, before)


def pick(rng, things):
  return things[int(rng.integers(len(things)))]


def any_file(rng, run):
  """One of those that are read when the run is opened, mostly."""
  found = files_of(run)
  names = ("config.json", "tokenizer.model", "text.json", "versions.json", "average/", "average/", "checkpoints/")
  return pick(rng, found.get(pick(rng, names)) or found["config.json"])


def nodes(rng, run, outside):
  """A pipe, a socket, a device in the place of a file or beside it."""
  path = any_file(rng, run)
  path = path.with_name("more") if rng.random() < 0.3 else path
  path.unlink(missing_ok=True)
  what = pick(rng, ("pipe", "socket", "device") if os.geteuid() == 0 else ("pipe", "socket"))
  if what == "pipe":
    os.mkfifo(path)
  elif what == "socket":
    home = os.open(path.parent, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as server:
      server.bind(f"/proc/self/fd/{home}/{path.name}")  # the whole path would be too long
    os.close(home)
  else:
    os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 5))  # /dev/zero by another name
  return f"{what} {path.name}"


def links(rng, run, outside):
  """A link in the place of a file or folder that leads out, to a device, to nothing or round."""
  path = any_file(rng, run)
  path = pick(rng, (path, path, path.parent if path.parent != run else path))
  target = pick(rng, ("/dev/zero", "/etc/passwd", str(outside), str(outside / "secret"), "nothing", ".", "..",
                      path.name, "/proc/self/fd/0"))  # fmt: skip
  shutil.rmtree(path) if path.is_dir() else path.unlink()
  path.symlink_to(target)
  return f"{path.name} -> {target}"


def values(outside):
  deep = []
  for _ in range(900):
    deep = [deep]
  code = f"__import__('pathlib').Path({str(outside / 'ran')!r}).touch()"
  return [
    None, True, -1, 0, 1, 2, 7, 10**6, 2**31, 2**63, 10**12, 10**400, 0.5, -0.5, 1e308, float("nan"), float("inf"), "",
    "x" * 10**5, "../../x", str(outside), "\0", "/dev/zero", "\ud800", [], [1], ["en"], {}, {"a": 1}, deep, code,
    f"$(touch {outside}/ran)", f"!!python/object/apply:os.system ['touch {outside}/ran']", "name(a=1)",
    "huggingface:a/b",
  ]  # fmt: skip


def fields(rng, run, outside):
  """A value of another type or size in the config, or a field or group more or less."""
  path = run / "config.json"
  config = json.loads(path.read_text())
  group = pick(rng, [name for name, value in config.items() if isinstance(value, dict) and value])
  name, value = pick(rng, sorted(config[group])), pick(rng, values(outside))
  move = pick(rng, ("value", "value", "value", "value", "value", "missing", "more", "group", "task"))
  if move == "value":
    config[group][name] = value
  elif move == "missing":
    config.pop(group) if rng.random() < 0.3 else config[group].pop(name)
  elif move == "more":
    config[group][pick(rng, ("__class__", "lock", "items", "x", "_fields", "to_dict"))] = value
  else:
    config[group if move == "group" else "task"] = value
  rewrite(run, path, json.dumps(config).encode())
  return f"{move} {group}.{name} = {str(value)[:60]!r}"


def texts(rng, run, outside):
  """Attentions and feed-forwards by name, with options that nobody has."""
  from attention_zoo.ops import variant

  path = run / "config.json"
  config = json.loads(path.read_text())
  name = pick(rng, sorted(variant.by_name()))
  options = list(inspect.signature(variant.by_name()[name]).parameters)[1:]
  value = lambda: pick(rng, ("1000000", "1000000000", "-1", "0", "1", "1e308", "'x'", "None", "True", "3", "[]",
                             "9" * 400))  # fmt: skip
  text = f"{name}({', '.join(f'{option}={value()}' for option in options if rng.random() < 0.9)})"
  field = pick(rng, ("encoder_attention", "decoder_attention"))
  if rng.random() < 0.2:
    field, text = "feed_forward", f"mixture_of_experts(num_experts={value()}, k={value()})"
  config["model"][field] = text
  config["data"]["batching"] = "bucketed"
  rewrite(run, path, json.dumps(config).encode())
  return f"{field} = {text[:80]}"


def places(rng, run, outside):
  """Fields that name a place, which reading must not write to."""
  path = run / "config.json"
  config = json.loads(path.read_text())
  config["data"]["cache_dir"] = pick(rng, (str(outside / "cache"), "../../outside/cache", "~/cache", "gs://nowhere/x"))
  if rng.random() < 0.3:
    config["data"]["dir"], config["data"]["source"] = pick(rng, (str(outside), "/dev", "/proc/self")), "text"
  rewrite(run, path, json.dumps(config).encode())
  return f"cache_dir = {config['data']['cache_dir']}"


def json_bombs(rng, run, outside):
  """JSON that is deep, long, of another type, or none."""
  names = "config.json", "text.json", "versions.json", "average/average.json", "average/checksums.json"
  lists = "average/params/_METADATA", "checkpoints/*/params/_METADATA", "checkpoints/*/_CHECKPOINT_METADATA"
  more = "checkpoints/*/params/_sharding", "checkpoints/*/params/array_metadatas/process_0"
  path = pick(rng, [path for pattern in names + lists + more for path in sorted(run.glob(pattern))])
  bombs = (
    b"[" * 100_000, b'{"a":' * 100_000, b"[]", b"{}", b"null", b"3", b'"x"', b"", b"\xff\xfe", b"[" * 900 + b"]" * 900,
    b'{"config": 3, "steps": "x", "tree_metadata": {"a": 3}, "custom_metadata": []}', b"1" * 5000,
    b'{"a": "' + b"x" * (1 << 22) + b'"}', b'{"tree_metadata": [' + b"[]," * 10_000 + b"[]]}",
  )  # fmt: skip
  content = pick(rng, bombs)
  rewrite(run, path, content)
  if path.name == "checksums.json":
    path.write_bytes(content)
  return f"{path.relative_to(run)} = {content[:20]!r}"


def checksums(rng, run, outside):
  """Lists of checksums that name other places, or are none."""
  path = pick(rng, sorted(run.glob("average/checksums.json")) + sorted(run.glob("checkpoints/*/checksums.json")))
  sums = json.loads(path.read_text())
  name = pick(rng, ("/dev/zero", "../../../../dev/zero", "../../config.json", "../../../outside/secret", "", ".",
                    "params", "\0"))  # fmt: skip
  value = pick(rng, ([0, 0], 3, None, "x", [1, 2, 3], [10**400, 0]))
  path.write_text(json.dumps(pick(rng, (sums | {name: value}, {name: value}, [name], {}, [],
                                        dict.fromkeys(sums, value)))))  # fmt: skip
  return f"{path.parent.name}/checksums.json: {name!r}: {value!r}"[:80]


def parameters(rng, run, outside):
  """An average with an array more or less, or of another shape or type, whole and with its checksums."""
  import orbax.checkpoint as ocp

  from attention_zoo.training import arrays

  directory = run / "average" / "params"
  params = arrays.read_params(directory)
  branch = pick(rng, [branch for branch in _branches(params)])
  name = pick(rng, sorted(branch))
  old = branch[name]
  what = pick(rng, ("missing", "more", "zeros", "wider", "float16", "int8", "nan", "scalar", "text", "renamed", "flat"))
  if what in ("missing", "renamed"):
    branch.pop(name)
  new = {
    "more": {"more": old}, "zeros": {"more": np.zeros((20_000, 20_000), np.int8)}, "missing": {}, "scalar": {name: 3.0},
    "wider": {name: np.zeros((*old.shape, 2), old.dtype)}, "float16": {name: old.astype(np.float16)},
    "text": {name: "x"}, "int8": {name: old.astype(np.int8)}, "nan": {name: old * np.nan},
    "renamed": {f"../{name}": old}, "flat": {name: old.ravel()},
  }  # fmt: skip
  branch.update(new[what])
  shutil.rmtree(directory)
  with ocp.PyTreeCheckpointer() as checkpointer:
    checkpointer.save(directory, args=ocp.args.PyTreeSave(params))
  seal(run, directory, b"")
  return f"{what} {name}"


def _branches(tree):
  """The dicts of a tree that hold arrays."""
  if any(not isinstance(value, dict) for value in tree.values()):
    yield tree
  for value in tree.values():
    if isinstance(value, dict):
      yield from _branches(value)


def headers(rng, run, outside):
  """Headers of arrays that promise what is not there, and pieces that unpack to gigabytes."""
  import tensorstore

  base = {"driver": "file", "path": f"{run}/average/params/"}
  store = tensorstore.KvStore.open({"driver": "ocdbt", "base": base}).result()
  keys = sorted(key.decode() for key in store.list().result())
  key = pick(rng, [key for key in keys if key.endswith("/.zarray")])
  header = json.loads(store.read(key).result().value)
  field = pick(rng, (*sorted(header), "piece"))
  if field == "piece":  # zstd: blocks of 128 kB of zeros in four bytes each
    block = lambda last: ((131072 << 3) | (1 << 1) | last).to_bytes(3, "little") + b"\0"
    key = pick(rng, [name for name in keys if not name.endswith("/.zarray")])
    content = b"\x28\xb5\x2f\xfd\x00\x38" + block(0) * 24_000 + block(1)
  else:
    wrong = (
      None, 0, -1, 10**12, "x", [], [10**5, 10**5], [2**62] * 4, "<f8", "|O", {"id": "bz2"}, {"id": "x"}, [0], True,
    )  # fmt: skip
    header[field] = pick(rng, wrong)
    content = json.dumps(header).encode()
  store.write(key, content).result()
  seal(run, run / "average" / "params", b"")
  return f"{key} {field} = {str(header.get(field))[:40]}"


def tokens(rng, run, outside):
  """Tokenised text that is not of this vocabulary, or no array; its checksums fit."""
  path = pick(rng, sorted(run.glob("data/*/*.npy")))
  old = path.read_bytes()
  wrong = (
    np.int32([10**9] * 50), np.int32([-1] * 50), np.int64([0, 2**62]), np.int64([5, 3, 1]), np.float32([0.5] * 9),
    np.int32(7), [], np.array([{}], object), flip(rng, bytearray(old)), garbage(rng, old),
    old.replace(b"(", b"(1000000000000,", 1), b"",
  )  # fmt: skip
  which = int(rng.integers(len(wrong)))
  if isinstance(wrong[which], (bytes, bytearray)):
    rewrite(run, path, bytes(wrong[which]))
  else:
    np.save(path, wrong[which], allow_pickle=True)
    seal(run, path, old)
  return f"{path.name}: {which}"


def sizes(rng, run, outside):
  """A terabyte that takes no room, or folders without end."""
  path = any_file(rng, run)
  what = pick(rng, ("sparse", "sparse", "deep", "many", "name"))
  if what == "sparse":
    path = path.with_name("more") if rng.random() < 0.3 else path
    with open(path, "ab") as file:
      file.truncate(1 << 40)
  elif what == "deep":
    (path.parent / "/".join("d" * 100)).mkdir(parents=True)
  elif what == "many":
    for i in range(2000):
      (path.parent / f"more {i}").touch()
  else:
    (path.parent / pick(rng, ("\n", "x" * 255, "\udcff", "..x", "-rf", "%s{}", "*[a-"))).write_bytes(b"x")
  return f"{what} {path.relative_to(run)}"


def steps(rng, run, outside):
  """Step folders with names that are no steps, or steps of nothing."""
  path = pick(rng, sorted((run / "checkpoints").iterdir()))
  if rng.random() < 0.5:
    shutil.rmtree(run / "average")
  name = pick(rng, ("9000000", "-1", "1e3", "4\u0664", "0040", "9" * 30, "x", " 40", "40.orbax-checkpoint-tmp"))
  pick(rng, (path.rename, lambda target: shutil.copytree(path, target)))(path.with_name(name))
  if rng.random() < 0.3:
    shutil.rmtree(path.with_name(name) / "params")
  return f"step {path.name} as {name!r}"


def fuzz(rng, run, outside):
  """Bytes that changed, and checksums that fit: every reader sees them."""
  path = any_file(rng, run)
  data = bytearray(path.read_bytes() or b"0")
  for _ in range(int(rng.integers(1, 5))):
    data = bytearray(pick(rng, (flip, flip, truncate, digit, garbage))(rng, data) or b"0")
  rewrite(run, path, bytes(data))
  return f"bytes of {path.relative_to(run)}"


HOSTILE = (
  nodes, links, fields, fields, texts, places, json_bombs, checksums, parameters, headers, tokens, sizes, steps,
  fuzz, fuzz,
)  # fmt: skip
