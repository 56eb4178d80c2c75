import pytest

from attention_zoo.data.splits import resolve
from attention_zoo.errors import UserError


def test_a_role_is_played_by_what_the_config_says_and_a_name_stands_for_itself():
  roles = {"train": "train[:50%]", "dev": "validation", "test": ""}
  assert [resolve(split, roles) for split in ("train", "dev", "validation")] == [
    "train[:50%]",
    "validation",
    "validation",
  ]
  with pytest.raises(UserError, match="There is no test split: set data.test_split"):
    resolve("test", roles)
