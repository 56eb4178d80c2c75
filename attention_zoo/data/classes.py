"""The names of the classes of a run's images, as WORKDIR/tokenizer.model keeps them: JSON {"classes": [name, ..]}."""

import json

from attention_zoo import files
from attention_zoo.errors import UserError


def learn(names) -> bytes:
  return (json.dumps({"classes": list(names)}, ensure_ascii=False) + "\n").encode()


def parse(content: bytes, where) -> tuple[str, ...]:
  """The names. Raises UserError for what is no such list."""
  found = files.parse_json(content, f"{where}/tokenizer.model", depth=4)
  names = found.get("classes") if isinstance(found, dict) else None
  if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
    raise UserError(f"{where}/tokenizer.model does not hold the names of classes: bring back a copy of the original")
  return tuple(names)
