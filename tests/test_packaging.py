"""What an index and an installer are told about the package."""

import importlib.util
import pathlib
import re
import tomllib

import attention_zoo

ROOT = pathlib.Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SPEC = importlib.util.spec_from_file_location("zoo_setup", ROOT / "setup.py")
SETUP = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(SETUP)


def test_the_project_is_described():
  project = PROJECT["project"]
  assert project["version"] == attention_zoo.__version__
  assert project["authors"] == [{"name": "The attention_zoo authors"}]
  lowest = int(re.fullmatch(r">=3\.(\d+)", project["requires-python"])[1])
  versions = re.findall(r"Python :: 3\.(\d+)", " ".join(project["classifiers"]))
  assert [int(version) for version in versions] == list(range(lowest, lowest + len(versions)))


def test_types_are_announced():
  assert (ROOT / "attention_zoo" / "py.typed").is_file()
  assert "py.typed" in PROJECT["tool"]["setuptools"]["package-data"]["attention_zoo"]


def test_links_of_the_readme_lead_to_the_repository():
  repository = PROJECT["project"]["urls"]["Repository"]
  text = "[a](docs/a.md) [b](#b) [c](https://c.org) [d](docs/d.md#e)"
  assert SETUP.absolute(text, "https://h/r") == (
    "[a](https://h/r/blob/main/docs/a.md) [b](#b) [c](https://c.org) [d](https://h/r/blob/main/docs/d.md#e)"
  )
  links = re.findall(r"\]\(([^)\s]+)\)", SETUP.absolute((ROOT / "README.md").read_text(), repository))
  files = [
    link.removeprefix(f"{repository}/blob/main/").partition("#")[0] for link in links if link.startswith(repository)
  ]
  assert files and all((ROOT / file).exists() for file in files)
  assert all(re.match(r"#|https?:", link) for link in links)
