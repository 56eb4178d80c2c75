"""The splits of a data set: asked for by role ("train", "dev", "test";
the config says which split plays it) or by name."""

from attention_zoo.errors import UserError

ROLES = ("train", "dev", "test")


def resolve(split: str, roles: dict[str, str]) -> str:
  """The name of the split that plays the role `split`; any other name stands for itself."""
  name = roles.get(split, split)
  if not name:
    raise UserError(f"There is no {split} split: set data.{split}_split.")
  return name
