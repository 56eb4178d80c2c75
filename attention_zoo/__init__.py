"""attention_zoo: every attention variant of the classic lectures, trained, averaged, decoded and scored in JAX.

import attention_zoo as zoo
run = zoo.load("runs/quickstart")
run.translate(["The concert takes place in Moscow in May 2033."])
"""

__version__ = "0.1.0"


def __getattr__(name):
  # `import attention_zoo` stays instant: JAX and Orbax are imported when `load` is first asked for.
  if name == "load":
    from attention_zoo.api import load

    return load
  raise AttributeError(f"module 'attention_zoo' has no attribute {name!r}")
