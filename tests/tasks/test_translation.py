"""The task that the training loop sees: what it reads, what it keeps, and what it says about wrong input."""

import shutil

import jax
import pytest

import attention_zoo as zoo
from attention_zoo import tasks
from attention_zoo.errors import UserError
from attention_zoo.tasks.translation import Translation
from tests.compilations import compilations
from tests.small_run import small_config


@pytest.fixture
def files(number_files, tmp_path):
  """A copy of the parallel text, to be spoilt."""
  return shutil.copytree(number_files, tmp_path / "files")


@pytest.fixture
def make(files, tmp_path):
  """Makes the task on `files`; fields: {"group.name": value}."""

  def make(fields=(), workdir=tmp_path / "run"):
    config = small_config(files)
    config.update_from_flattened_dict(dict(fields))
    return Translation(config, workdir)

  return make


@pytest.mark.parametrize(("too_long", "done"), [("truncate", "cut there"), ("skip", "left out")])
def test_long_sentences_are_counted_and_told_once(make, files, caplog, too_long, done):
  for language in ("en", "de"):
    lines = (files / f"dev.{language}").read_text().splitlines()
    (files / f"dev.{language}").write_text("\n".join(lines[:10] + [8 * (line + " ") for line in lines[10:]]))
  task = make({"data.too_long": too_long, "data.max_length": 32})
  task.claim()
  kept = len(task.corpus("dev"))
  assert kept == {"truncate": 20, "skip": 10}[too_long]
  assert max(task.corpus("dev").target_lengths) <= 32
  told = f"dev: 10 of 20 pairs are longer than config.data.max_length = 32 tokens and {done}"
  assert [record.getMessage() for record in caplog.records] == [told]


def test_a_vocabulary_is_learnt_by_training_and_by_nothing_else(make, files, tmp_path):
  with pytest.raises(UserError, match=r"run has no text\.json, and so no vocabulary: training writes it"):
    make().corpus("dev")
  assert not (tmp_path / "run").exists()
  first = make()
  first.train_batches(0, (0,), 1)
  (files / "train.en").unlink()
  assert make().tokenizer.vocab_size == 200 and make().tokenizer.fingerprint == first.tokenizer.fingerprint


@pytest.mark.parametrize("name", ["tokenizer.model", "text.json"])
def test_what_reads_a_run_without_its_vocabulary_writes_none(tiny_run, tmp_path, name):
  run = shutil.copytree(tiny_run, tmp_path / "run")
  (run / name).unlink()
  with pytest.raises(UserError, match=r"(no tokenizer at|no text\.json)"):
    zoo.load(run).translate(["seven"])
  assert not (run / name).exists()


@pytest.mark.parametrize("name", ["tokenizer.model", "text.json"])
def test_what_reads_a_run_is_held_to_its_checksums(tiny_run, tmp_path, name):
  run = shutil.copytree(tiny_run, tmp_path / "run")
  content = bytearray((run / name).read_bytes())
  for i in range(0, len(content), len(content) // 7):
    (run / name).write_bytes(content[:i] + bytes([content[i] ^ 4]) + content[i + 1 :])
    with pytest.raises(UserError, match=rf"{name} is not (as it was written|valid JSON)"):
      zoo.load(run).translate(["seven"])


def test_a_vocabulary_of_another_size_is_refused(make):
  make().train_batches(0, (0,), 1)
  with pytest.raises(UserError, match=r"the tokenizer has 200 pieces, but config.data.vocab_size = 190"):
    make({"data.vocab_size": 190}).tokenizer  # noqa: B018


def test_a_run_without_a_checkpoint_takes_other_settings(make):
  make().train_batches(0, (0,), 1)
  other = make({"data.vocab_size": 150, "data.max_length": 20})
  other.train_batches(0, (0,), 1)
  assert other.tokenizer.vocab_size == 150


def test_what_a_killed_start_left_half_tokenized_is_cleared(make, tmp_path):
  build = tmp_path / "run" / "data" / f".{'0' * 20}.ab_cd.tmp"
  build.mkdir(parents=True)
  (build / "meta.json").touch()
  make().train_batches(0, (0,), 1)
  assert not build.exists()


def test_a_relative_data_dir_is_found_from_elsewhere(make, files, tmp_path, monkeypatch):
  monkeypatch.chdir(files.parent)
  make({"data.dir": "files"}).train_batches(0, (0,), 1)
  (tmp_path / "elsewhere").mkdir()
  monkeypatch.chdir(tmp_path / "elsewhere")
  task = make({"data.dir": "files"})
  assert len(task.corpus("test")) == 20 and task.config.data.dir == "files"
  files.rename(tmp_path / "moved")
  with pytest.raises(UserError, match="data.dir=.*files is not a directory. .*--data_dir"):
    make({"data.dir": "files"}).corpus("test")


def test_a_run_is_evaluated_on_text_that_has_moved(tiny_run, files, tmp_path):
  run = shutil.copytree(tiny_run, tmp_path / "run")
  shutil.rmtree(run / "data")
  (files / "test.en").rename(files / "other.en")
  (files / "test.de").rename(files / "other.de")
  assert len(zoo.load(run, data_dir=files).task.corpus("other")) == 20
  with pytest.raises(UserError, match=r"neither .*/files/test\.en nor .* there: dev, other, train"):
    zoo.load(run, data_dir=files).evaluate("test")


def test_the_readmes_command_trains_on_sentences_as_long_as_a_row(files, tmp_path):
  """One sentence of each side has 61 pieces, all others are short: both sides of a row have room for it."""
  from configs import multi30k_tiny

  with open(files / "train.en", "a") as en, open(files / "train.de", "a") as de:
    print(" ".join(["seven"] * 62), "one", sep="\n", file=en)
    print("sieben", " ".join(["sieben"] * 62), sep="\n", file=de)
  config = multi30k_tiny.get_config()
  config.data.update(dir=str(files), dev_split="dev", test_split="test", tokenized=False, vocab_size=200)
  task = Translation(config, tmp_path / "run")
  task.train_batches(0, (0,), 1)
  corpus = task.corpus("train")
  assert min(max(corpus.source_lengths), max(corpus.target_lengths)) > 60


@pytest.mark.parametrize(
  ("harm", "message"),
  [
    (lambda file: file.unlink(), r"neither .*dev\.de nor"),
    (lambda file: file.write_text("eins\n"), r"dev\.en has 20 lines and .*dev\.de has 1"),
    (lambda file: file.write_bytes(b"eins\n" * 18 + b"\xff\nzwei\n"), r"dev\.de, line 19: invalid UTF-8"),
    (lambda file: file.write_bytes(b""), r"dev\.de is empty"),
  ],
)
def test_what_is_wrong_with_dev_is_told_before_anything_is_learnt(make, files, tmp_path, harm, message):
  harm(files / "dev.de")
  with pytest.raises(UserError, match=message):
    make().train_batches(0, (0,), 1)
  assert not (tmp_path / "run" / "tokenizer.model").exists()


def test_text_may_move_but_not_change(make, files, tmp_path):
  moved = tmp_path / "moved"
  make().train_batches(0, (0,), 1)
  (tmp_path / "run" / "checkpoints" / "5").mkdir(parents=True)
  shutil.copytree(files, moved)
  make({"data.dir": str(moved)}).train_batches(5, (0,), 1)
  assert tasks.make(small_config(files), tmp_path / "run").tokenizer.vocab_size  # what reads needs no text
  path = moved / "train.en"
  path.write_text(path.read_text().replace("seven", "eight", 1))
  with pytest.raises(
    UserError, match=rf"the training text \(config.data.dir = '{moved}'\) is not the one .* bring that back"
  ):
    make({"data.dir": str(moved)}).train_batches(0, (0,), 1)


def test_a_dev_sentence_that_fits_no_row_is_told_at_the_start(make, files):
  with open(files / "dev.en", "a") as en, open(files / "dev.de", "a") as de:
    print(*["seven"] * 60, file=en)
    print("sieben", file=de)
  with pytest.raises(UserError, match="row_length"):
    make({"data.max_length": 200, "data.row_length": 40}).train_batches(0, (0,), 1)


def test_rows_are_what_the_config_says(make):
  fields = {"data.batching": "bucketed", "data.row_multiple": 16, "data.batch_tokens": 4000}
  for config in (fields, fields | {"data.batching": "packed"}):
    task = make(config)
    task.claim()
    shapes = task.train_shapes()
    assert shapes and all(rows % 16 == 0 for shape in shapes for rows, _ in shape.values())


def test_subword_sampling_is_asked_for_by_the_config(make):
  batches = []
  for amount in (0.0, 0.1, 0.1):
    task = make({"data.subword_sampling": amount})
    batches.append(next(task.train_batches(3, (0,), 1))["targets"].tolist())
  assert batches[1] == batches[2] != batches[0]


def test_what_is_wrong_with_train_leaves_no_vocabulary(make, files, tmp_path):
  with pytest.raises(UserError, match=r"vocab_size=9000 is too large .* Set config.data.vocab_size to \d+ or less"):
    make({"data.vocab_size": 9000}).train_batches(0, (0,), 1)
  lines = (files / "train.de").read_bytes().splitlines()
  (files / "train.de").write_bytes(b"\n".join(lines[:-1] + [b"\xe4cht"]))
  with pytest.raises(UserError, match=r"train\.de, line 1200: invalid UTF-8"):
    make().train_batches(0, (0,), 1)
  assert not list((tmp_path / "run").glob("*"))


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"model.name": "transformr"}, "config.model.name = 'transformr' is not one of .*transformer"),
    ({"model.name": "transformer_lm"}, "config.model.name = 'transformer_lm' is no model for this task"),
    ({"model.positions": "learnt"}, "config.model: .*positions"),
    ({"model.positions": "learned", "model.max_length": 16}, "positions end at config.model.max_length = 16"),
  ],
)
def test_a_model_that_cannot_be_is_told(make, fields, message):
  with pytest.raises(UserError, match=message):
    make(fields)


def test_sizes_that_do_not_go_together_are_told(make):
  with pytest.raises(UserError, match="config.model: .*even d_model"):
    jax.eval_shape(make({"model.d_model": 31}).init, jax.random.key(0))


@pytest.mark.parametrize("bounded", [{"model.positions": "learned"}, {"model.decoder_attention": "music"}])
def test_the_longest_input_of_a_model_that_is_bounded(make, bounded):
  sizes = {"model.max_length": 40, "data.row_length": 40, "data.max_length": 40, "decode.batch_tokens": 80}
  task = make({**sizes, **bounded})
  task.claim()
  run = task.runner(jax.jit(task.init)(jax.random.key(0)).params, {}, checkpoint="none", step=0)
  assert run.task.model_config.bounded and not make().model_config.bounded
  (hypothesis,) = run.hypotheses(["seven " * 60], beam_size=1)[0]
  assert 0 < len(hypothesis.ids) <= 40


def test_a_task_that_does_not_exist_is_told(number_files, tmp_path):
  config = small_config(number_files)
  config.task = "translate"
  with pytest.raises(UserError, match="config.task = 'translate' is not one of translation"):
    tasks.make(config, tmp_path)


@pytest.mark.parametrize(
  ("checkpoint", "message"),
  [("best", "'average', 'latest' or a step, not 'best'"), ("15", r"no checkpoint of step 15; it has \[20, 30, 40\]")],
)
def test_a_checkpoint_that_does_not_exist_is_told(tiny_run, checkpoint, message):
  with pytest.raises(UserError, match=message):
    zoo.load(tiny_run, checkpoint)


def test_a_split_that_does_not_exist_is_told(tiny_run):
  with pytest.raises(UserError, match=r"neither .*test_2020\.en nor .* there: dev, test, train"):
    zoo.load(tiny_run).evaluate("test_2020")


def test_bleu_while_training_is_of_these_parameters_and_compiles_once(tiny_run):
  import jax

  run = zoo.load(tiny_run)
  with run.config.unlocked():
    run.config.decode.dev_sentences = 8
  assert set(run.task.dev_score_names) == {"bleu", "chrf"}
  params = jax.device_get(run.params)
  found = run.task.dev_scores(params, {})
  assert found == run.task.dev_scores(params, {}) and 0 <= found["bleu"] <= 100
  with compilations() as names:
    other = run.task.dev_scores(jax.tree.map(lambda x: -x, params), {})
  assert other != found and "search" not in names


def test_samples_while_training_are_the_same_at_every_call(tiny_run):
  import jax

  run = zoo.load(tiny_run)
  params = jax.device_get(run.params)
  found = run.task.dev_samples(params, {}, 2)
  pairs = list(run.task.source.pairs("dev"))[:2]
  assert [(sample["source"], sample["reference"]) for sample in found.samples] == pairs
  assert [sample["translation"] for sample in found.samples] == run.translate([s for s, _ in pairs], beam_size=1)
  assert set(found.figures) == {"attention"} and found.figures["attention"].startswith(b"\x89PNG")
  with compilations() as names:
    assert run.task.dev_samples(params, {}, 2) == found
  assert "search" not in names
  assert not run.task._runner.params  # training has the memory back
