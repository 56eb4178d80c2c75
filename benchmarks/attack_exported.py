"""What benchmarks/attack.py does to an exported folder: accidents, and what a sender may have made."""

import json
import shutil
import struct

from attention_zoo.exchange.folder import write_sums
from benchmarks import attack_moves
from benchmarks.attack_moves import pick

SUMS, PARAMETERS = "SHA256SUMS", "model.safetensors"
ACCIDENT = "exported/"
NAMES = (PARAMETERS, PARAMETERS, "config.json", "card.json", "text.json", "tokenizer.model", "README.md", SUMS)


def swap(run, exported) -> None:
  """Puts a copy of the exported folder in the place of the run."""
  shutil.rmtree(run)
  shutil.copytree(exported, run)


def corrupt(rng, run) -> str:
  return attack_moves.corrupt(rng, run, pick(rng, NAMES))


def exported(rng, run, outside):
  """The parameters' header, the card, the list of checksums, the config, or what stands in the place of a file."""
  swap(run, outside.parent / "exported")
  move = pick(rng, (header, header, header, card, sums, config, config, attack_moves.nodes, attack_moves.links))
  what = move(rng, run, outside)
  if move in (header, card, config):
    (run / SUMS).unlink()
    write_sums(run)  # that fit
  return f"{move.__name__}: {what}"


def config(rng, run, outside):
  return pick(rng, (attack_moves.fields, attack_moves.texts))(rng, run, outside)


def header(rng, run, outside):
  """An array that claims another type, shape or place, more of them, or a length of the header that cannot be."""
  path = run / PARAMETERS
  content = path.read_bytes()
  (length,) = struct.unpack("<Q", content[:8])
  found, data = json.loads(content[8 : 8 + length]), content[8 + length :]
  name = pick(rng, sorted(set(found) - {"__metadata__"}))
  field = pick(rng, ("dtype", "shape", "data_offsets", "more", "many", "missing", "length", "metadata"))
  value = pick(rng, attack_moves.values(outside))
  if field in ("dtype", "shape", "data_offsets"):
    value = pick(rng, (value, [10**9, 10**9], [0, 0], [-1, 5], [2**63, 1], "F64", "BOOL", "I8", [0, 10**12]))
    found[name][field] = value
  elif field == "more":
    name = pick(rng, ("params", f"{name}/x", "../../x", "params/" * 500, "\0", "params//x", "x#scale"))
    found[name] = {"dtype": "F32", "shape": [0], "data_offsets": [len(data), len(data)]}
  elif field == "many":
    empty = {"dtype": "F32", "shape": [0], "data_offsets": [len(data), len(data)]}
    found |= {f"params/x{i}": empty for i in range(20_000)}
  elif field == "missing":
    del found[name]
  elif field == "metadata":
    found["__metadata__"] = value
  text = json.dumps(found).encode()
  length = pick(rng, (0, 2**63 - 1, 10**9, len(text) + 1, 3)) if field == "length" else len(text)
  path.write_bytes(struct.pack("<Q", length) + text + data)
  return f"{field} of {name[:60]} {str(value)[:40]!r}"


def card(rng, run, outside):
  path = run / "card.json"
  found, value = json.loads(path.read_text()), pick(rng, attack_moves.values(outside))
  name = pick(rng, ("steps", "steps", "scores", "config", "stored_as", "data", "versions"))
  found[name] = [value] if rng.random() < 0.5 else value
  path.write_text(json.dumps(pick(rng, (found, found, found, value))))
  return f"{name} = {str(value)[:40]!r}"


def sums(rng, run, outside):
  """A list of checksums that names what is outside, nothing, too much, or the same file twice."""
  path = run / SUMS
  lines = path.read_text().splitlines()
  line = pick(rng, lines)
  more = pick(rng, (f"{'0' * 64}  ../outside/secret", f"{'0' * 64}  /etc/passwd", line, line.upper(), "", "x" * 10**6,
                    f"{'0' * 64}  " + "a" * 5000, f"{'0' * 64}  ..", f"{'0' * 64}  nothing"))  # fmt: skip
  kept = lines if rng.random() < 0.7 else [kept for kept in lines if kept != line]
  path.write_text("\n".join([*kept, more]) + "\n")
  return f"{len(kept)} of {len(lines)} lines and {more[:70]!r}"
