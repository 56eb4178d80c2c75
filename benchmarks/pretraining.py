"""What pretraining is worth: SST-2 and CoNLL-2003 with and without it, several seeds, one table each.

  python -m benchmarks.pretraining --sst2=FOLDER --conll=FOLDER --workdir=runs/pretraining

--sst2: train.txt, dev.txt and test.txt (or .gz), a label and then the words of a line. --conll: train.txt and valid.txt
(or .gz), a word and its tag a line. One of them is enough. Encoders are pretrained on the text of the training split,
without its labels, until every 20th of its lines, which is held out, is no longer predicted better. Each row tunes one
encoder; "random" is the same one that begins with random parameters. Scores: accuracy on SST-2's test split, entity F1
on CoNLL's valid split; of the last checkpoint, which no score has chosen. A run that is there is not made again.

"+-" is the standard deviation (`statistics.stdev`) over the seeds of tuning, 0.00 for one seed. All tune the same
pretrained encoder: what another pretraining would change is not in it. Rows are functions in `ROWS`: a model of one's
own is one more.
"""

import argparse
import json
import pathlib
import statistics

from attention_zoo import files
from benchmarks import pretraining_lstm

SIZES = dict(d_model=128, d_ff=512, num_heads=4, d_k=32, d_v=32, num_layers=3, max_length=256)
TINY = dict(d_model=16, d_ff=32, num_heads=2, d_k=8, d_v=8, num_layers=1, max_length=256)
DATA = {
  "sst2": dict(source="tsv(columns=('label', 'text'), separator=' ')", labels=("0", "1"), dev_split="dev"),
  "conll": dict(source="conll", labels=("PER", "LOC", "ORG", "MISC"), dev_split="valid"),
}
ROW_LENGTH = 256  # a sentence of CoNLL has up to 202 pieces
HELD_OUT = 20  # one in so many lines is for choosing when pretraining ends
SPLITS = {"sst2": "test", "conll": "valid"}  # that is scored
METRIC = {"sst2": "accuracy", "conll": "F1"}


def main():
  options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  for name in ("sst2", "conll"):
    options.add_argument(f"--{name}", type=files.expand, help="its folder")
  options.add_argument("--workdir", type=files.expand, required=True)
  options.add_argument("--seeds", type=int, default=3)
  options.add_argument("--rows", default=",".join(ROWS), help="those of the table")
  options.add_argument("--pretraining_steps", type=int, default=3000)
  options.add_argument("--steps", type=int, default=1000, help="of tuning")
  options.add_argument("--tiny", action="store_true", help="the smallest sizes, to see that it works")
  args = options.parse_args()
  if unknown := set(args.rows.split(",")) - set(ROWS):
    options.error(f"--rows: there is no {', '.join(sorted(unknown))}; there are {', '.join(ROWS)}")
  if args.seeds < 1:
    options.error("--seeds must be at least 1")
  if not (args.sst2 or args.conll):
    options.error("name a set: --sst2=FOLDER or --conll=FOLDER")
  for data in ("sst2", "conll"):
    if folder := getattr(args, data):
      table(args, data, pathlib.Path(folder))


def table(args, data, folder):
  """Trains what is missing, and prints and writes the rows of one set."""
  text = plain_text(args, data, folder)
  found = {}
  for row in args.rows.split(","):
    found[row] = [score(args, data, folder, text, row, seed) for seed in range(args.seeds)]
    mean, spread = statistics.mean(found[row]), statistics.stdev(found[row]) if args.seeds > 1 else 0.0
    print(f"{data:6} {row:14} {METRIC[data]} {mean:.2f} +- {spread:.2f}  {found[row]}", flush=True)
  record = {"metric": METRIC[data], "split": SPLITS[data], "scores": found, "options": vars(args)}
  files.write_text(args.workdir / f"{data}.json", json.dumps(record, indent=1, default=str))


def plain_text(args, data, folder):
  """The training sentences without their labels, as lines of train.txt and dev.txt: what encoders are pretrained on."""
  from attention_zoo import tasks

  task = tasks.make(tuned(args, data, folder, seed=0), args.workdir / "none")
  to = pathlib.Path(args.workdir) / f"{data}_text"
  lines = [" ".join(getattr(x, "texts", None) or x.words) + "\n" for x in task.source.examples("train")]
  files.write_text(to / "dev.txt", "".join(lines[HELD_OUT - 1 :: HELD_OUT]))
  del lines[HELD_OUT - 1 :: HELD_OUT]
  files.write_text(to / "train.txt", "".join(lines))
  return to


def score(args, data, folder, text, row, seed) -> float:
  import attention_zoo as zoo

  workdir = pathlib.Path(args.workdir) / data / row / str(seed)
  config = ROWS[row](args, data, folder, text, seed)
  train(config, workdir)
  evaluation = zoo.load(workdir).evaluate(SPLITS[data])
  return next(score.value for score in evaluation.scores if score.name == METRIC[data])


def train(config, workdir):
  from attention_zoo import tasks
  from attention_zoo.training import loop

  tasks.validate(config)
  loop.train(tasks.make(config, workdir), config, workdir)


def sizes(args):
  return TINY if args.tiny else SIZES


def tuned(args, data, folder, seed, model=None):
  """A config that tunes a BERT, or another model, on a set."""
  from attention_zoo.configs.pretraining import classification_quickstart, tagging_quickstart

  config = {"sst2": classification_quickstart, "conll": tagging_quickstart}[data].get_config()
  if model:
    config.model = type(config)(model).lock()
  config.model.update({name: size for name, size in sizes(args).items() if name in config.model})
  config.data.update(DATA[data] | rows(args) | dict(dir=str(folder), test_split=SPLITS[data], seed=seed))
  config.data.lower = data != "conll"  # names are told by their capitals
  config.optimizer.update(linear(args.steps, 10), learning_rate=5e-4, d_model=sizes(args)["d_model"])
  config.train.update(
    steps=args.steps, eval_every=args.steps, checkpoint_every=args.steps, best_metric="", seed=seed, dev_samples=0,
    keep=1,
  )  # fmt: skip
  return config


def rows(args) -> dict:
  """Fields of config.data."""
  return dict(row_length=ROW_LENGTH, batch_tokens=(8 if args.tiny else 16) * ROW_LENGTH, vocab_size=vocabulary(args))


def linear(steps, part) -> dict:
  """Fields of config.optimizer: the rate rises for one in `part` of the steps, then falls to 0."""
  warmup = max(steps // part, 1)
  return dict(schedule=f"linear(decay_steps={max(steps - warmup, 1)})", warmup_steps=warmup)


def vocabulary(args):
  return 400 if args.tiny else 4000


def pretrained(args, data, text, name, config):
  """The folder of an encoder that has been pretrained, once for all seeds."""
  config.model.update({key: size for key, size in sizes(args).items() if key in config.model})
  config.data.update(rows(args) | dict(dir=str(text), dev_split="dev", test_split="dev"))
  steps = args.pretraining_steps
  every = max(steps // 20, 1)
  config.optimizer.update(
    linear(steps, 20), name="adamw(b1=0.9, b2=0.98, eps=1e-6, weight_decay=0.01)", learning_rate=1e-3,
    d_model=sizes(args)["d_model"], clip_norm=1.0,
  )  # fmt: skip
  config.train.update(
    steps=steps, eval_every=every, checkpoint_every=every, best_metric="loss", best_mode="min", patience=3,
    dev_samples=0,
  )  # fmt: skip
  workdir = pathlib.Path(args.workdir) / data / f"pretrained_{name}"
  train(config, workdir)
  return best(workdir)


def best(workdir) -> str:
  """The export of a run's best checkpoint: of a work directory train.init_from takes the newest."""
  import attention_zoo as zoo
  from attention_zoo.exchange import folder
  from attention_zoo.training import best as best_lib

  to = workdir.with_name(f"{workdir.name}_best")
  if not to.exists():
    folder.write(zoo.load(workdir, best_lib.read(workdir)[-1]["step"]), to)
  return str(to)


# Rows: (args, data, folder, text, seed) -> config


def random_bert(args, data, folder, text, seed):
  return tuned(args, data, folder, seed)


def bert(args, data, folder, text, seed):
  from attention_zoo.configs.pretraining import bert_quickstart

  base = bert_quickstart.get_config()
  base.data.update(source="text(documents='file')", batching="full_sentences", lower=data != "conll")
  base.model.pooler = False  # a pooler that nothing has trained is drawn anew
  config = tuned(args, data, folder, seed)
  config.train.init_from = pretrained(args, data, text, "bert", base)
  return config


GPT = dict(name="gpt", dropout=0.1, attention_dropout=0.1) | SIZES


def _gpt(args, data, folder, seed):
  config = tuned(args, data, folder, seed, GPT)
  config.data.tokenizer = "byte_bpe"
  if data == "sst2":
    config.head.pooling = "last"
    config.train.language_model_weight = 0.5
  return config


def random_gpt(args, data, folder, text, seed):
  return _gpt(args, data, folder, seed)


def gpt(args, data, folder, text, seed):
  from attention_zoo.configs.language import quickstart

  base = quickstart.get_config()
  base.model = type(base)(GPT).lock()
  base.data.update(source="text(documents='line')", tokenizer="byte_bpe", batching="packed")
  config = _gpt(args, data, folder, seed)
  config.train.init_from = pretrained(args, data, text, "gpt", base)
  return config


ROWS = {"random_bert": random_bert, "bert": bert, "random_gpt": random_gpt, "gpt": gpt} | pretraining_lstm.ROWS

if __name__ == "__main__":
  main()
