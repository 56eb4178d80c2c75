"""The page of an index: README.md with its links made absolute, for the files that they name are not there.

All else is in pyproject.toml.
"""

import pathlib
import re
import tomllib

ROOT = pathlib.Path(__file__).parent


def absolute(markdown: str, repository: str) -> str:
  """The text with links to files of this repository led to it. Links to headings and to other places stay."""
  return re.sub(r"\]\((?!#|[a-z]+:)([^)\s]+)\)", rf"]({repository}/blob/main/\1)", markdown)


if __name__ == "__main__":
  from setuptools import setup

  project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
  page = absolute((ROOT / "README.md").read_text(), project["urls"]["Repository"])
  setup(long_description=page, long_description_content_type="text/markdown")
