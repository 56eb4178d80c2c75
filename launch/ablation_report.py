"""Gathers what the rows found and writes report.md, report.html, report.png and results.json."""

import io
import json
import statistics

from attention_zoo import files
from attention_zoo.errors import UserError
from launch import ablation_grid, ablation_rows

PACKAGES = ("attention_zoo", "jax", "flax", "optax", "numpy", "python")


def training_flops(fields):
  """Floating-point operations of a training, as executed: products of matrices, forward once and backward twice.

  Per position of a full batch, 2 for each weight it meets (the embedding as output layer, not as input; keys and
  values of the source are the encoder's positions), and 2 T h (d_k + d_v) for attention over rows of length T, of
  which a decoder has two. Padding, normalisation and softmax are left out.
  """
  f = lambda name: fields[f"model.{name}"]
  attention = f("num_heads") * (2 * f("d_k") + 2 * f("d_v")) * f("d_model")
  scores = fields["data.row_length"] * f("num_heads") * (f("d_k") + f("d_v"))
  feed_forward = 2 * f("d_model") * f("d_ff")
  encoder = f("num_encoder_layers") * (attention + scores + feed_forward)
  decoder = f("num_decoder_layers") * (2 * attention + 2 * scores + feed_forward)
  output = f("d_model") * fields["data.vocab_size"]
  return 6 * (encoder + decoder + output) * fields["data.batch_tokens"] * fields["train.steps"]


def steps_per_second(directory):
  """Median over the records of training, whose clocks leave compilation and evaluation out;
  None without two records."""
  train = [record for record in ablation_grid.records(directory, tail=0) if record.get("split") == "train"]
  speeds = []
  for before, now in zip(train, train[1:], strict=False):
    steps, tokens = now["step"] - before["step"], now.get("weight")
    if steps > 0 and tokens and now.get("tokens_per_second"):
      speeds.append(now["tokens_per_second"] * steps / tokens)
  return statistics.median(speeds) if speeds else None


def gather(grid):
  """{"header", "rows"} as `attention_zoo.plots.ablation.ablation_report` takes them."""
  at_work = bool(ablation_grid.locked(grid.workdir))
  rows = [_row(grid, name, at_work) for name in ablation_rows.ROWS]
  return {"header": _header(grid, rows), "rows": rows}


def _row(grid, name, at_work):
  from attention_zoo.models.translation import transformer

  paper, own = ablation_rows.module_of(name).PAPER, ablation_rows.fields_of(name)
  row = {"row": name, "group": ablation_rows.group(name), "seeds": []}
  row |= {"params_paper" if key == "params" else f"paper_{key}": value for key, value in paper.items()}
  try:
    fields = ablation_rows.row_fields(name, grid.fields)
  except UserError as error:
    fields, row["status"] = {}, f"not run: {error}"
  for prefix, field in ablation_rows.FACTORS.items():
    if name == "base":
      row.setdefault("values", {})[prefix] = fields[field]
    elif name.startswith(prefix):
      row |= {"value": fields.get(field, "–"), "paper_value": own[field]}
  if name == "big":
    row["value"] = "2 × width and heads, 3 × steps, dropout 0.3"
  if not fields:
    return row
  model = {field.removeprefix("model."): v for field, v in fields.items() if field.startswith("model.")}
  model.pop("name")
  row["params_ours"] = transformer.parameter_count(
    transformer.Config(vocab_size=fields["data.vocab_size"], **model)
  )
  row["flops"] = training_flops(fields)
  states, speeds = {}, []
  for seed in grid.seeds(name):
    directory = grid.directory(name, seed)
    found = ablation_grid.progress(directory, fields["train.steps"], at_work)
    if found.status == "done":
      row["seeds"].append({"seed": seed, "perplexity": found.perplexity, "bleu": found.bleu})
      speeds.append(steps_per_second(directory))
    else:
      states[seed] = f"{found.status}{found.message and ': '}{found.message}"
  speeds = [speed for speed in speeds if speed]
  row["unfinished"] = [f"seed {seed} {state}" for seed, state in states.items()]
  told = "; ".join(row["unfinished"] if len(states) > 1 else states.values()) or "not run"
  row["status"] = "done" if row["seeds"] else told
  row["steps_per_second"] = statistics.mean(speeds) if speeds else None
  return row


def _header(grid, rows):
  fields, settings = ablation_rows.row_fields("base", grid.fields), grid.settings
  header = {
    "scale": f"{settings['scale']}: base has "
    + ", ".join(
      f"{label} {fields[field]:,}"
      for label, field in {
        "d_model": "model.d_model",
        "d_ff": "model.d_ff",
        "h": "model.num_heads",
        "d_k": "model.d_k",
        "layers": "model.num_encoder_layers",
        "vocabulary": "data.vocab_size",
      }.items()
    ),
    "training": f"{fields['train.steps']:,} steps of {fields['data.batch_tokens']:,} tokens a side",
    "data": settings["data"],
    "measured": f"dev set ({fields['data.dev_split']}): perplexity per word piece without label smoothing; BLEU with "
    f"beam {fields['decode.beam_size']}, alpha {fields['decode.alpha']}, last checkpoint, nothing averaged",
  }
  finished = [(row["row"], seed["seed"]) for row in rows for seed in row["seeds"]]
  read = lambda name: [ablation_grid.read_json(grid.directory(*key) / name) or {} for key in finished]
  versions = read("versions.json")
  names = [name for name in PACKAGES if any(name in found for found in versions)]
  header |= {
    "bleu": _distinct(ablation_grid.bleu_of(found)["signature"] for found in read("eval/dev-latest.json")),
    "versions": {name: _distinct(found[name] for found in versions if name in found) for name in names},
    "seeds": ", ".join(map(str, sorted({seed for _, seed in finished}))) or "none",
    "hardware": _distinct(name for note in read("row.json") for name in note.get("hardware", [])),
    "command": "\n".join(settings["commands"]),
  }
  return {key: value for key, value in header.items() if value}


def _distinct(texts):
  return " and ".join(dict.fromkeys(texts))


def metrics():
  """What Table 3 compares its rows by."""
  from attention_zoo.plots.ablation_charts import Metric

  return (Metric("perplexity", "perplexity", digits=2, lower=True, per_cent=True), Metric("bleu", "BLEU", digits=1))


def write(grid):
  """Writes the four files into the grid's directory and returns their paths."""
  from attention_zoo.plots import ablation

  gathered = gather(grid)
  markdown, html, figure = ablation.ablation_report(gathered, metrics())
  rows, summary = ablation.compare(gathered["rows"], metrics())
  picture = io.BytesIO()
  figure.savefig(picture, format="png", dpi=150)
  results = json.dumps({"header": gathered["header"], "rows": rows, "summary": summary}, indent=1) + "\n"
  contents = {
    "report.md": markdown.encode(),
    "report.html": html.encode(),
    "report.png": picture.getvalue(),
    "results.json": results.encode(),
  }
  paths = []
  for name, content in contents.items():
    paths.append(grid.workdir / name)
    files.write_bytes(paths[-1], content)
  return paths
