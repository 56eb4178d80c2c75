"""attention_zoo: every attention variant of the classic lectures, trained, averaged, decoded and scored in JAX.

import attention_zoo as zoo
run = zoo.load("phrasebook-en-de")          # or a run of yours: zoo.load("runs/demo")
run.translate(["The concert takes place in Moscow in May 2033."])
"""

import typing

__version__ = "0.1.0"
__all__ = ("build", "describe", "ensemble", "list", "load", "pretrained", "sizes")

if typing.TYPE_CHECKING:  # what editors complete
  from attention_zoo.api import build, describe, ensemble, list, load, pretrained, sizes


def __getattr__(name):
  # `import attention_zoo` stays instant: JAX and Orbax are imported when one of these is first asked for.
  if name in __all__:
    from attention_zoo import api

    return getattr(api, name)
  raise AttributeError(f"module 'attention_zoo' has no attribute {name!r}")


def __dir__():
  return sorted({*globals(), *__all__})
