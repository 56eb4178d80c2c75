"""The rows of Table 3 as training's flags, at the paper's size or shrunk.

One rule makes a grid smaller. Base gets the fields of `SCALES` and of the command line, and a row keeps its
relation to base: where a row changes a size or a length (`RELATIVE`), it changes base's by the same factor as in
the paper; anything else that it changes (dropout, label smoothing, the kind of positions) is as in the paper.

  tiny       widths (d_model, d_ff, d_k, d_v) / 8, depth / 2, steps / 100, batches of 2,048 tokens: two CPU cores
  tiny_long  tiny with steps / 25: `tiny` tells how fast a row learns, this how good it becomes, as the paper does
  small      widths / 2, depth as in the paper, steps / 20, batches of 8,192 tokens: one GPU
  paper      the files as they are

Warm-up shrinks less than the steps: it is 20 % of base's training at both tiny scales and 10 % at `small`, where the
paper's is 4 %. Nor by any factor of the above: the vocabulary (4,000 and 8,000 pieces; 2,048 for the phrasebook), rows
of 64 and 128 tokens, sentences of 48 and 96, model.max_length (128 and 256), how often is logged, evaluated and saved,
and at the tiny scales the dtype, float32. Heads are not shrunk: there, 32 heads have keys of 2 and one head has keys of
64, the whole of d_model.
"""

import ast
import difflib
import importlib
import pathlib

from attention_zoo import files
from attention_zoo.errors import UserError

ROOT = pathlib.Path(__file__).parents[1]

ROWS = (
  "base",
  *("a_heads_1", "a_heads_4", "a_heads_16", "a_heads_32"),
  *("b_dk_16", "b_dk_32"),
  *("c_layers_2", "c_layers_4", "c_layers_8"),
  *("c_dmodel_256", "c_dmodel_1024", "c_dff_1024", "c_dff_4096"),
  *("d_dropout_0", "d_dropout_02", "d_smoothing_0", "d_smoothing_02"),
  "e_learned_positions",
  "big",
)
# What a row varies, by what its name begins with.
FACTORS = {
  "a_heads": "model.num_heads",
  "b_dk": "model.d_k",
  "c_layers": "model.num_encoder_layers",
  "c_dmodel": "model.d_model",
  "c_dff": "model.d_ff",
  "d_dropout": "model.dropout",
  "d_smoothing": "train.label_smoothing",
  "e_": "model.positions",
}
RELATIVE = (
  *("model.d_model", "model.d_ff", "model.num_heads", "model.d_k", "model.d_v"),
  *("model.num_encoder_layers", "model.num_decoder_layers", "train.steps"),
)
# Sentences (max_length) are cut to three quarters of a row: the rows of the side with fewer tokens are shorter.
SCALES = {
  "paper": {},
  "small": {
    "model.d_model": 256,
    "model.d_ff": 1024,
    "model.d_k": 32,
    "model.d_v": 32,
    "model.max_length": 256,
    "data.vocab_size": 8000,
    "data.batch_tokens": 8192,
    "data.row_length": 128,
    "data.max_length": 96,
    "optimizer.warmup_steps": 500,
    "train.steps": 5000,
    "train.eval_every": 1000,
    "train.checkpoint_every": 500,
  },
  "tiny": {
    "model.d_model": 64,
    "model.d_ff": 256,
    "model.d_k": 8,
    "model.d_v": 8,
    "model.num_encoder_layers": 3,
    "model.num_decoder_layers": 3,
    "model.max_length": 128,
    "model.dtype": "float32",
    "data.vocab_size": 4000,
    "data.batch_tokens": 2048,
    "data.row_length": 64,
    "data.max_length": 48,
    "optimizer.warmup_steps": 200,
    "train.steps": 1000,
    "train.log_every": 50,
    "train.eval_every": 500,
    "train.checkpoint_every": 250,
  },
}
SCALES["tiny_long"] = SCALES["tiny"] | {
  "optimizer.warmup_steps": 800,
  "train.steps": 4000,
  "train.eval_every": 1000,
  "train.checkpoint_every": 500,
}
PHRASEBOOK_VOCABULARY = 2048  # pieces; its text holds little more
DEV_SPLITS = ("validation", "valid", "val", "dev", "newstest2013")


def group(name):
  """ "A" to "E"; base and big stand for themselves."""
  return name if name in ("base", "big") else name[0].upper()


def choose(text):
  """The rows that --rows asks for, in the table's order: "all", groups and names with commas between."""
  chosen = set()
  for word in text.split(","):
    found = [name for name in ROWS if word in ("all", name) or word.upper() == group(name)]
    if not found:
      near = difflib.get_close_matches(word, ROWS, n=1)
      hint = f"did you mean {near[0]}?" if near else f"there are all, a, b, c, d, e, {', '.join(ROWS)}"
      raise UserError(f"--rows: no row or group is called {word!r}; {hint}")
    chosen.update(found)
  return [name for name in ROWS if name in chosen]


def file_of(name):
  return ROOT / "configs" / "ablation" / f"{name}.py"


def module_of(name):
  return importlib.import_module(f"configs.ablation.{name}")


def fields_of(name):
  """{"group.field": value} of a row's own file, without the schedule's width, which follows the model's."""
  config = module_of(name).get_config().to_dict()
  groups = {group: fields for group, fields in config.items() if isinstance(fields, dict)}
  found = {f"{group}.{field}": value for group, fields in groups.items() for field, value in fields.items()}
  del found["optimizer.d_model"]
  return found


def base_fields(scale, data, directory, overrides):
  """What base gets instead of what its file says.

  data: "" (the paper's at scale paper, else the phrasebook), "phrasebook" or "tfds:NAME". directory: of text files,
  "" for none. overrides: "GROUP.FIELD=VALUE" texts, which come last. Raises UserError.
  """
  base = fields_of("base")
  fields = dict(SCALES[scale])
  if data and directory:
    raise UserError("--data and --data.dir exclude each other (of TFDS data: --config.data.dir=DIR)")
  if not data and not directory and scale != "paper":
    data = "phrasebook"
  if directory:
    fields |= {"data.source": "text", "data.dir": str(pathlib.Path(directory).absolute())}
  elif data == "phrasebook":
    fields |= {"data.source": "phrasebook", "data.dev_split": "dev"}
    fields["data.vocab_size"] = PHRASEBOOK_VOCABULARY
  elif data.startswith("tfds:") and data != "tfds:":
    fields |= {"data.source": f"tfds(name={data.removeprefix('tfds:')!r})"}
  elif data:
    raise UserError(f"--data={data}: write phrasebook or tfds:NAME, for example tfds:wmt14_translate/de-en")
  for text in overrides:
    field, equals, value = text.partition("=")
    if field not in base or not equals:
      near = difflib.get_close_matches(field, base, n=1)
      raise UserError(
        f"--config.{text}: write --config.GROUP.FIELD=VALUE" + (f" (did you mean {near[0]}?)" if near else "")
      )
    if field in ("train.seed", "data.seed", "data.cache_dir"):
      raise UserError(f"--config.{text}: the runner sets {field} (see --seeds and --workdir)")
    fields[field] = _read(field, value, base[field])
    if field == "data.dir" and value and files.is_local(value):
      fields[field] = str(files.expand(value))
  if directory and "data.dev_split" not in fields:
    fields["data.dev_split"] = _dev_split(directory, fields.get("data.languages", base["data.languages"]))
  return fields


def _read(field, text, like):
  """The value of a flag, of the type that the config's own value has."""
  kind = type(like)
  try:
    if kind is bool:
      return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
    value = kind(ast.literal_eval(text)) if kind is tuple else kind(text)
  except (ValueError, KeyError, SyntaxError, TypeError) as error:
    raise UserError(f"--config.{field}={text} must be a value like {like!r}") from error
  return value


def _dev_split(directory, languages):
  folder = pathlib.Path(directory)
  if not folder.is_dir():
    raise UserError(f"--data.dir={directory} is not a directory")
  names = [path.name.removesuffix(".gz") for path in folder.iterdir()]
  for split in DEV_SPLITS:
    if all(f"{split}.{language}" in names for language in languages):
      return split
  raise UserError(
    f"{directory} has no dev set: none of {', '.join(DEV_SPLITS)} is there for both {' and '.join(languages)}. "
    "Name yours with --config.data.dev_split=NAME (and --config.data.train_split, --config.data.languages)"
  )


def row_fields(name, changed):
  """All fields of a row at the grid's scale, by the rule above. changed: from `base_fields`.

  Raises UserError where the paper's factor does not make a whole number of base's value.
  """
  base, row = fields_of("base"), fields_of(name)
  fields = {}
  for field, value in row.items():
    ours = changed.get(field, base[field])
    if value == base[field]:
      fields[field] = ours
    elif field in RELATIVE:
      fields[field], rest = divmod(ours * value, base[field])
      if rest or not fields[field]:
        raise UserError(
          f"row {name} has {field} {value} where base has {base[field]}; of {ours} that is no whole number: "
          f"choose another --config.{field}"
        )
    else:
      fields[field] = value
  return fields


def flags(name, changed, seed, cache_dir):
  """Training's --config flags: where the row's own file must be overridden."""
  own = fields_of(name)
  fields = row_fields(name, changed) | {
    "train.seed": seed,
    "data.seed": seed,
    "data.cache_dir": str(cache_dir),
  }
  return [f"--config.{field}={value}" for field, value in fields.items() if value != own[field]]
