"""Table 3 as files: each differs from base in its row's fields alone, and has the paper's parameters."""

import sys

import jax
import pytest
from absl import flags as absl_flags
from ml_collections import config_flags

from attention_zoo import tasks
from attention_zoo.configs import transformer_base
from attention_zoo.models.translation import transformer
from attention_zoo.tasks.translation import Translation
from attention_zoo.training import config as config_lib
from launch import ablation_rows
from launch.restart import UserError

# Table 3 once more, by hand: what a row sets, and the millions of parameters at 37,000 pieces.
TABLE = {
  "base": ({}, 63.05),
  "a_heads_1": ({"model.num_heads": 1, "model.d_k": 512, "model.d_v": 512}, 63.05),
  "a_heads_4": ({"model.num_heads": 4, "model.d_k": 128, "model.d_v": 128}, 63.05),
  "a_heads_16": ({"model.num_heads": 16, "model.d_k": 32, "model.d_v": 32}, 63.05),
  "a_heads_32": ({"model.num_heads": 32, "model.d_k": 16, "model.d_v": 16}, 63.05),
  "b_dk_16": ({"model.d_k": 16}, 55.97),
  "b_dk_32": ({"model.d_k": 32}, 58.33),
  "c_layers_2": ({"model.num_encoder_layers": 2, "model.num_decoder_layers": 2}, 33.64),
  "c_layers_4": ({"model.num_encoder_layers": 4, "model.num_decoder_layers": 4}, 48.35),
  "c_layers_8": ({"model.num_encoder_layers": 8, "model.num_decoder_layers": 8}, 77.75),
  "c_dmodel_256": ({"model.d_model": 256, "model.d_k": 32, "model.d_v": 32}, 26.82),
  "c_dmodel_1024": ({"model.d_model": 1024, "model.d_k": 128, "model.d_v": 128}, 163.82),
  "c_dff_1024": ({"model.d_ff": 1024}, 50.45),
  "c_dff_4096": ({"model.d_ff": 4096}, 88.24),
  "d_dropout_0": ({"model.dropout": 0.0}, 63.05),
  "d_dropout_02": ({"model.dropout": 0.2}, 63.05),
  "d_smoothing_0": ({"train.label_smoothing": 0.0}, 63.05),
  "d_smoothing_02": ({"train.label_smoothing": 0.2}, 63.05),
  "e_learned_positions": ({"model.positions": "learned"}, 64.09),  # a table for each side
  "big": (
    {
      "model.d_model": 1024,
      "model.d_ff": 4096,
      "model.num_heads": 16,
      "model.dropout": 0.3,
      "train.steps": 300_000,
    },
    214.17,
  ),
}
PAPER = {
  "base": (4.92, 25.8, 65),
  "a_heads_1": (5.29, 24.9, None),
  "a_heads_4": (5.00, 25.5, None),
  "a_heads_16": (4.91, 25.8, None),
  "a_heads_32": (5.01, 25.4, None),
  "b_dk_16": (5.16, 25.1, 58),
  "b_dk_32": (5.01, 25.4, 60),
  "c_layers_2": (6.11, 23.7, 36),
  "c_layers_4": (5.19, 25.3, 50),
  "c_layers_8": (4.88, 25.5, 80),
  "c_dmodel_256": (5.75, 24.5, 28),
  "c_dmodel_1024": (4.66, 26.0, 168),
  "c_dff_1024": (5.12, 25.4, 53),
  "c_dff_4096": (4.75, 26.2, 90),
  "d_dropout_0": (5.77, 24.6, None),
  "d_dropout_02": (4.95, 25.5, None),
  "d_smoothing_0": (4.67, 25.3, None),
  "d_smoothing_02": (5.47, 25.7, None),
  "e_learned_positions": (4.92, 25.7, None),
  "big": (4.33, 26.4, 213),
}


def difference(old, new):
  return {field: value for field, value in new.items() if value != old[field]}


def model_config(fields, vocab_size):
  model = {name.removeprefix("model."): value for name, value in fields.items() if name.startswith("model.")}
  model.pop("name")
  return transformer.Config(vocab_size=vocab_size, **model)


def count(name, vocab_size):
  return transformer.parameter_count(model_config(ablation_rows.fields_of(name), vocab_size))


def test_the_files_are_the_table():
  files = {path.stem for path in ablation_rows.file_of("base").parent.glob("*.py")}
  assert files == set(TABLE) == set(ablation_rows.ROWS) == set(PAPER) and list(TABLE) == list(
    ablation_rows.ROWS
  )


@pytest.mark.parametrize("name", TABLE)
def test_a_row_differs_from_base_in_its_own_fields_alone(name):
  config = ablation_rows.module_of(name).get_config()
  tasks.validate(config)
  assert config.is_locked
  assert difference(ablation_rows.fields_of("base"), ablation_rows.fields_of(name)) == TABLE[name][0]


def test_base_is_the_papers_base():
  published = transformer_base.get_config()
  config = ablation_rows.module_of("base").get_config()
  assert config_lib.diff(published, config).split(":")[0].strip() == "train.keep"
  assert config.train.steps == 100_000 and (config.decode.beam_size, config.decode.alpha) == (4, 0.6)
  # newstest2013 is the validation split of TFDS's WMT 2014.
  assert (config.data.source, config.data.dev_split) == ("tfds(name='wmt14_translate/de-en')", "validation")


@pytest.mark.parametrize("name", TABLE)
def test_the_papers_figures(name):
  perplexity, bleu, params = PAPER[name]
  expected = {"perplexity": perplexity, "bleu": bleu} | ({"params": params * 1e6} if params else {})
  assert ablation_rows.module_of(name).PAPER == expected


@pytest.mark.parametrize("name", TABLE)
def test_parameters(name):
  f = ablation_rows.fields_of(name)
  d_model, d_ff, width = f["model.d_model"], f["model.d_ff"], f["model.num_heads"]
  width *= 2 * f["model.d_k"] + 2 * f["model.d_v"]
  layers = f["model.num_encoder_layers"]
  # A pair of layers: three attentions, two feed-forwards with their biases, five normalisations.
  pair = 3 * width * d_model + 2 * (2 * d_model * d_ff + d_ff + d_model) + 5 * 2 * d_model
  positions = 2 * 1024 * d_model if f["model.positions"] == "learned" else 0
  exact = 37_000 * d_model + layers * pair + positions
  assert count(name, 37_000) == exact
  assert exact / 1e6 == pytest.approx(TABLE[name][1], abs=0.005)
  # No vocabulary fits all of the paper's column; an empty cell means as base.
  paper = (PAPER[name][2] or PAPER["base"][2]) * 1e6
  assert exact == pytest.approx(paper, rel=0.07)
  if name != "big":
    assert count(name, 41_000) == pytest.approx(paper, rel=0.02)


@pytest.mark.parametrize("name", ["a_heads_32", "b_dk_16", "e_learned_positions"])
def test_the_model_has_the_parameters_that_are_counted(name, tmp_path):
  fields = ablation_rows.base_fields(
    "paper", "", "", ["model.num_encoder_layers=1", "model.num_decoder_layers=1"]
  )
  config = ablation_rows.module_of(name).get_config()
  for field in ("num_encoder_layers", "num_decoder_layers"):
    config.model[field] = 1
  task = Translation(config, tmp_path)
  leaves = jax.tree.leaves(jax.eval_shape(task.init, jax.random.key(0)))
  expected = transformer.parameter_count(model_config(ablation_rows.row_fields(name, fields), 37_000))
  assert sum(leaf.size for leaf in leaves) == expected


# Scales


@pytest.mark.parametrize("scale", ablation_rows.SCALES)
@pytest.mark.parametrize("name", TABLE)
def test_a_scale_keeps_every_rows_relation_to_base(name, scale):
  changed = ablation_rows.base_fields(scale, "", "", [])
  paper_base, paper_row = ablation_rows.fields_of("base"), ablation_rows.fields_of(name)
  base, row = ablation_rows.row_fields("base", changed), ablation_rows.row_fields(name, changed)
  assert set(difference(base, row)) == set(TABLE[name][0])
  for field in TABLE[name][0]:
    if field in ablation_rows.RELATIVE:
      assert row[field] * paper_base[field] == base[field] * paper_row[field] and isinstance(row[field], int)
    else:
      assert row[field] == paper_row[field]
  if scale == "paper":
    assert row == paper_row


def test_tiny_by_hand():
  changed = ablation_rows.base_fields("tiny", "", "", [])
  row = lambda name: ablation_rows.row_fields(name, changed)
  assert (row("base")["model.d_model"], row("base")["model.num_heads"], row("base")["model.d_k"]) == (
    64,
    8,
    8,
  )
  assert (row("a_heads_1")["model.num_heads"], row("a_heads_1")["model.d_k"]) == (1, 64)
  assert (row("a_heads_32")["model.num_heads"], row("a_heads_32")["model.d_v"]) == (32, 2)
  assert [row(f"c_layers_{n}")["model.num_decoder_layers"] for n in (2, 4, 8)] == [1, 2, 4]
  assert (row("c_dmodel_1024")["model.d_model"], row("c_dmodel_1024")["model.d_k"]) == (128, 16)
  assert (row("big")["train.steps"], row("big")["model.num_heads"], row("big")["model.d_k"]) == (3000, 16, 8)


def test_tiny_long_is_tiny_trained_longer():
  tiny, long = (ablation_rows.base_fields(scale, "", "", []) for scale in ("tiny", "tiny_long"))
  other = {field: value for field, value in long.items() if tiny[field] != value}
  assert other == {
    "train.steps": 4000, "optimizer.warmup_steps": 800, "train.eval_every": 1000, "train.checkpoint_every": 500
  }  # fmt: skip


def test_flags_of_the_command_line_change_base_and_every_row_with_it():
  changed = ablation_rows.base_fields(
    "tiny", "", "", ["train.steps=500", "data.tokenized=true", "model.dropout=0.3"]
  )
  assert ablation_rows.row_fields("big", changed)["train.steps"] == 1500
  assert ablation_rows.row_fields("d_dropout_02", changed)["model.dropout"] == 0.2
  assert ablation_rows.row_fields("e_learned_positions", changed)["model.dropout"] == 0.3
  assert changed["data.tokenized"] is True


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # of config_flags
@pytest.mark.parametrize("name", ["base", "a_heads_32", "d_smoothing_0", "e_learned_positions", "big"])
def test_trainings_flags_make_the_row(name, monkeypatch):
  """What `attention_zoo.train` reads from the file and the flags is the row, and nothing it would refuse."""
  changed = ablation_rows.base_fields("tiny", "tfds:some/set", "", ["data.languages=('en','fr')"])
  values = absl_flags.FlagValues()
  config_flags.DEFINE_config_file("config", None, flag_values=values)
  words = ablation_rows.flags(name, changed, 3, "/a b/cache")
  argv = ["train", f"--config={ablation_rows.file_of(name)}", *words]
  monkeypatch.setattr(sys, "argv", argv)  # where config_flags looks for the fields to define
  values(argv)
  tasks.validate(values.config)
  expected = ablation_rows.row_fields(name, changed) | {
    "train.seed": 3,
    "data.seed": 3,
    "data.cache_dir": "/a b/cache",
  }
  found = {
    f"{g}.{f}": v
    for g, fields in values.config.to_dict().items()
    if isinstance(fields, dict)
    for f, v in fields.items()
  }
  assert found.pop("optimizer.d_model") == found["model.d_model"]
  assert found == expected and found["data.languages"] == ("en", "fr")


def test_text_finds_its_dev_set(tmp_path):
  with pytest.raises(UserError, match="no dev set.*--config.data.dev_split=NAME"):
    ablation_rows.base_fields("tiny", "", str(tmp_path), [])
  for name in ("train.en", "train.de", "val.en.gz", "val.de"):
    (tmp_path / name).touch()
  changed = ablation_rows.base_fields("tiny", "", str(tmp_path), [])
  assert (changed["data.source"], changed["data.dev_split"], changed["data.dir"]) == (
    "text",
    "val",
    str(tmp_path),
  )
  assert ablation_rows.base_fields("tiny", "", str(tmp_path), ["data.dev_split=x"])["data.dev_split"] == "x"


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (("tiny", "", "", ["model.d_kk=3"]), "did you mean model.d_k"),
    (("tiny", "", "", ["model.d_k"]), "GROUP.FIELD=VALUE"),
    (("tiny", "", "", ["model.d_k=x"]), "must be a value like 64"),
    (("tiny", "", "", ["data.tokenized=perhaps"]), "must be a value like False"),
    (("tiny", "", "", ["train.seed=1"]), "see --seeds"),
    (("tiny", "wmt", "", []), "write phrasebook or tfds:NAME"),
    (("tiny", "tfds:", "", []), "write phrasebook or tfds:NAME"),
    (("tiny", "tfds:a", "/b", []), "exclude each other"),
    (("tiny", "", "/no/such", []), "not a directory"),
  ],
)
def test_what_is_refused(arguments, message):
  with pytest.raises(UserError, match=message):
    ablation_rows.base_fields(*arguments)


def test_a_size_that_does_not_divide_is_refused():
  changed = ablation_rows.base_fields("tiny", "", "", ["model.num_encoder_layers=2"])
  with pytest.raises(
    UserError, match="c_layers_2 has model.num_encoder_layers 2 where base has 6; of 2 that is no whole"
  ):
    ablation_rows.row_fields("c_layers_2", changed)


def test_choosing_rows():
  assert ablation_rows.choose("all") == list(ablation_rows.ROWS)
  assert ablation_rows.choose("c_layers_2,b,base") == ["base", "b_dk_16", "b_dk_32", "c_layers_2"]
  assert ablation_rows.choose("E,D")[-1] == "e_learned_positions" and len(ablation_rows.choose("E,D")) == 5
  with pytest.raises(UserError, match="'a_head_1'; did you mean a_heads_1"):
    ablation_rows.choose("a_head_1")
  with pytest.raises(UserError, match="''; there are all, a, b"):
    ablation_rows.choose("a,")
