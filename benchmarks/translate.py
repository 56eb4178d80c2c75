"""What `run.translate` costs above the bare beam search that it calls, and how soon the first translation is there.

  python -m benchmarks.translate [--run=phrasebook-en-de --sentences=512 --rounds=5]

Two sides in turn: the verb, from texts to texts; and the compiled search alone on the very batches that the verb makes,
which lie on the device already. The verb also cuts texts into pieces, sorts and pads them, copies, and puts pieces
together. Timed before that: loading, the first translation (compiled anew, whatever was compiled before), and a second
one of that shape.
"""

import time

from benchmarks import common


def main(argv=None):
  options = common.parser(__doc__, rounds=5)
  options.add_argument("--run", default="phrasebook-en-de", help="what attention_zoo.load opens: a translation run")
  options.add_argument("--sentences", type=int, default=512)
  arguments = options.parse_args(argv)
  common.prepare()

  start = time.perf_counter()
  import jax

  jax.config.update("jax_enable_compilation_cache", False)
  import attention_zoo as zoo
  from attention_zoo.data.phrasebook import Phrasebook

  imported = time.perf_counter()
  run = zoo.load(arguments.run)
  loaded = time.perf_counter()
  pairs = zip(range(8 if arguments.tiny else arguments.sentences), Phrasebook(("en", "de")).pairs("test"), strict=False)
  sentences = [source for _, (source, _) in pairs]
  times = {"import": imported - start, "load": loaded - imported}
  for name, sentence in (("first", sentences[0]), ("second", sentences[0])):
    start = time.perf_counter()
    run.translate([sentence])
    times[name] = time.perf_counter() - start

  calls, search = [], run._search
  run._search = lambda *args, **options: calls.append((args, options)) or search(*args, **options)
  run.translate(sentences)
  run._search = search
  bare = lambda: [jax.block_until_ready(search(*args, **options)) for args, options in calls]
  seconds = common.alternate({"run.translate": lambda: run.translate(sentences), "bare search": bare}, arguments.rounds)
  rows = [(side, rate) for side, rate, _ in common.side_rows(seconds, len(sentences), "run.translate", "sentences/s")]
  low, median, high = common.ratios(seconds, "bare search", "run.translate")
  notes = [
    f"run.translate takes {median - 1:+.1%} ({low - 1:+.1%} to {high - 1:+.1%}) of the bare search's time more.",
    f"import {times['import']:.1f} s, load {times['load']:.1f} s, first translation {times['first']:.1f} s, "
    f"second {1000 * times['second']:.0f} ms.",
  ]
  results = {
    "environment": common.environment(), "seconds": seconds, "times": times,
    "settings": {"run": arguments.run, "sentences": len(sentences), "batches": len(calls)},
  }  # fmt: skip
  columns = ("side", "rate: median (min to max)")
  title = f"run.translate, {len(sentences)} sentences"
  common.publish("translate", title, columns, rows, notes, results, arguments.out)


if __name__ == "__main__":
  main()
