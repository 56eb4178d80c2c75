"""The victim of benchmarks/attack.py: opens one folder after another and says what came of each,
a JSON line for a JSON line.

  {"folder": .., "checkpoint": .., "dev": ..} -> {"outcome": "answered" | "refused" | "traceback", ..., "memory": bytes}
"""

import hashlib
import json
import logging
import os
import resource
import sys
import traceback

SENTENCES = ["the house is old", "a small dog sees two cats", "good morning", ""]
ROOM = 3 << 30  # bytes of address space beyond what a healthy run takes


def open_and_use(zoo, request, clean=None):
  """(the run, what it answered, by which nothing can differ in silence)."""
  run = zoo.load(request["folder"], request["checkpoint"])
  if clean is not None and run.config == clean.config:  # then they are the same programs, and need no second compiling
    run.__dict__.update(
      {name: value for name, value in clean.__dict__.items() if type(value).__name__ == "PjitFunction"}
    )
  translations = run.translate(SENTENCES)
  scores = [found.logprob for found in run.score(SENTENCES[:2], ["das Haus ist alt", "ein Hund"])]
  dev = run.dev_loss() if request["dev"] else None
  return run, {"translations": translations, "scores": scores, "dev": dev}


def memory(name) -> int:
  """VmHWM, VmRSS or VmSize of this process in bytes."""
  with open("/proc/self/status") as file:
    return next(int(line.split()[1]) for line in file if line.startswith(name)) << 10


def attempt(zoo, request, clean, said) -> dict:
  from attention_zoo.errors import UserError

  said.clear()
  try:
    run, answers = open_and_use(zoo, request, clean)
  except UserError as error:
    return {"outcome": "refused", "text": str(error)}
  except Exception:
    return {"outcome": "traceback", "text": traceback.format_exc()[-2000:]}
  digest = hashlib.sha256(json.dumps(answers).encode()).hexdigest()
  kind = "step" if len(run.parents) == 1 else "average"
  return {"outcome": "answered", "from": f"{kind} {run.step}", "digest": digest, "text": "; ".join(said)}


class Said(logging.Handler):
  def __init__(self):
    super().__init__(logging.WARNING)
    self.lines = []

  def emit(self, record):
    self.lines.append(record.getMessage())


def main():
  answers = os.fdopen(os.dup(1), "w")
  os.dup2(2, 1)  # whatever prints, prints elsewhere
  import attention_zoo as zoo

  said = Said()
  logging.getLogger("attention_zoo").addHandler(said)
  clean = None
  for line in sys.stdin:
    request = json.loads(line)
    with open("/proc/self/clear_refs", "w") as file:
      file.write("5")  # the high-water mark begins anew
    before = memory("VmRSS")
    if clean is None:
      clean, _ = open_and_use(zoo, request)
      reply = attempt(zoo, request, clean, said.lines)
      room = memory("VmSize") + ROOM
      resource.setrlimit(resource.RLIMIT_AS, (room, room))
    else:
      reply = attempt(zoo, request, clean, said.lines)
    answers.write(json.dumps(reply | {"memory": max(memory("VmHWM") - before, 0)}) + "\n")
    answers.flush()


if __name__ == "__main__":
  main()
