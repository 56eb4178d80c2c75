"""A model of music from MIDI files to a motif that is continued, heard, seen and scored; wrong input in one line."""

import io
import json
import os
import subprocess
import sys
import types
import wave

import jax
import numpy as np
import pytest

import attention_zoo as zoo
from attention_zoo import tasks
from attention_zoo.configs.music import quickstart
from attention_zoo.data import midi
from attention_zoo.data.events import SIXTEENTH, VOCABULARIES
from attention_zoo.errors import UserError
from attention_zoo.exchange import folder as exported
from attention_zoo.tasks.musician import comparison
from attention_zoo.training import loop
from tests.data import tunes

SMALL = dict(d_model=16, d_ff=32, num_heads=2, d_k=8, d_v=8, num_layers=1, attention="music(max_distance=16)")
LSTM = dict(
  name="performance_rnn", d_model=16, d_hidden=16, num_layers=1, dropout=0.0, tied=True, dtype="float32",
  matmul_dtype="float32",
)  # fmt: skip


def make_config(directory, model=(), **data):
  config = quickstart.get_config()
  config.model.update(SMALL)
  if "name" in model:
    config.model = type(config)(model)
  else:
    config.model.update(dict(model))
  config.data.update(dir=str(directory), test_split="dev", batch_tokens=512, row_length=32)
  config.data.update(data)
  config.optimizer.update(schedule="constant", warmup_steps=5, learning_rate=0.01)
  config.train.update(steps=10, eval_every=10, checkpoint_every=10, log_every=10, dev_samples=1, best_metric="")
  config.decode.update(max_tokens=24, batch_tokens=512)
  return config


def performances(directory, model=(), **data):
  more = {"source": "midi", "tokenizer": "piano", "vocab_size": 312, "batching": "windows", "stretch": 0.05}
  return make_config(directory, {"pitch_and_time": False} if not model else model, **more | data)


def train(config, workdir):
  tasks.validate(config)
  loop.train(tasks.make(config, workdir), config, workdir, quiet=True)
  return zoo.load(workdir)


def begun(config, workdir):
  """A run whose parameters are those it begins with."""
  task = tasks.make(config, workdir)
  task.claim()
  return task.runner(*jax.jit(task.init)(jax.random.key(0)), checkpoint="latest", step=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  folder = tunes.folder(tmp_path_factory.mktemp("midi"))
  (folder / "train/poem.mid").write_bytes(b"no music")
  return folder


@pytest.fixture(scope="module")
def chorales(tmp_path_factory):
  path = tmp_path_factory.mktemp("chorales") / "chorales.json"
  grids = [tunes.grid(48, i).tolist() for i in range(8)]
  path.write_text(json.dumps({"train": grids[:6], "dev": grids[6:]}))
  return path


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
  return train(performances(folder), tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def choir(chorales, tmp_path_factory):
  return begun(make_config(chorales, source="chorales"), tmp_path_factory.mktemp("choir"))


@pytest.fixture(scope="module")
def motif(tmp_path_factory):
  path = tmp_path_factory.mktemp("motif") / "motif.mid"
  path.write_bytes(midi.write(tunes.scale(8) + [1.0, 1.0, 0, 0]))  # after a second of silence
  return path


def test_a_motif_is_continued_where_it_ends(run, motif):
  (found,) = run.sample(motif, seconds=3, seed=1, temperature=1.2)
  assert found.begins == pytest.approx(1.6)
  before = [note for note in found.notes if note[0] < found.begins - 1e-6]
  np.testing.assert_allclose(np.array(before)[:, :3], tunes.scale(8)[:, :3], atol=0.011)
  times = run.task.tokenizer.times(found.prompt + found.events)[len(found.prompt) :]
  assert (times >= found.begins - 1e-6).all() and (times < found.begins + 3).all() and found.seconds <= 4.6 + 1e-6
  assert found.notes[:, 1].max() <= max(found.seconds, found.notes[:, 0].max() + 0.05) + 1e-6
  assert len(found.ids) == len(found.logprobs) == len(found.events)
  assert run.task.tokenizer.encode([found.events]) == [found.ids]
  again = run.sample(motif.read_bytes(), seconds=3, seed=1, temperature=1.2)[0]
  assert again == found
  assert run.sample(midi.read(motif.read_bytes()), seconds=3, seed=1, temperature=1.2)[0] == found
  assert run.sample(seed=3, num_samples=2)[1] == run.sample(seed=4)[0]


def test_it_goes_on_past_the_length_of_a_row(run, motif):
  (found,) = run.sample(motif, max_tokens=80, seed=2)
  assert run.task.longest is None and len(found.prompt) + len(found.ids) > 32


def test_chorales_are_continued_in_whole_sixteenths(choir):
  prime = VOCABULARIES["chorales"].to_notes(VOCABULARIES["chorales"].from_grid(tunes.grid(8).clip(40)))
  (found,) = choir.sample(prime, seconds=4 * SIXTEENTH, seed=1)
  assert found.begins == pytest.approx(8 * SIXTEENTH) and len(found.events) <= 16
  assert found.seconds <= 12 * SIXTEENTH + 1e-6
  at_another_tempo = midi.write(prime * [10 / 3, 10 / 3, 1, 1], quarter=2.0)
  assert choir.prime(at_another_tempo) == choir.prime(found.midi())[: 8 * 4] == choir.prime(prime)


def test_samples_are_files_that_can_be_opened(run, motif, tmp_path):
  samples = run.save_samples(tmp_path / "out.mid", motif, seconds=2.0, num_samples=2)
  assert {path.name for path in tmp_path.iterdir()} == {
    f"{stem}{ending}" for stem in ("out", "out-2") for ending in (".mid", ".png", ".wav")
  }
  notes = midi.read((tmp_path / "out.mid").read_bytes())
  np.testing.assert_allclose(notes[:, :2], midi.separate(samples[0].notes)[:, :2], atol=0.001)
  assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
  with wave.open(io.BytesIO((tmp_path / "out.wav").read_bytes())) as file:
    assert file.getnframes() / file.getframerate() == pytest.approx(samples[0].notes[:, 1].max() + 0.4, abs=0.05)
  html = samples[0]._repr_html_()
  assert "<audio" in html and "<svg" in html


def test_it_is_scored_and_looked_at(run, motif):
  (score,) = run.score([motif])
  text = run.prime(motif)
  assert len(score.logprobs) == len(text) + 1 and score.pieces[0].startswith("velocity")
  seen = run.attention(motif)
  assert seen.weights.shape == (1, 2, len(text) + 1, len(text) + 1)
  assert seen.logprob == pytest.approx(score.logprob, rel=1e-4)
  assert run.arcs(motif).axes
  with pytest.raises(UserError, match="layer must be"):
    run.arcs(motif, layer=3)


def test_it_is_evaluated_and_has_a_page(run):
  result = run.evaluate("dev")
  assert {score.name for score in result.scores} >= {"nats per event", "perplexity per event"}
  assert result.record["perplexity"]["nats_per_event"] == pytest.approx(run.dev_loss(), rel=1e-5)
  page = run.page(result)
  assert page.count("<audio") == 2 and "media-src data:" in page


def test_training_batches_are_augmented_and_dev_is_not(folder, tmp_path):
  config = performances(folder)
  task = tasks.make(config, tmp_path)
  task.claim()
  batch = task.batches[0]
  with config.unlocked():
    config.data.update(transpose=0, stretch=0.0)
  plain = tasks.make(config, tmp_path)
  assert (batch["targets"] != plain.batches[0]["targets"]).any()
  for a, b in zip(task.eval_batches("dev"), plain.eval_batches("dev"), strict=True):
    np.testing.assert_array_equal(a["targets"], b["targets"])


def test_performance_rnn_hands_its_state_on(folder, tmp_path):
  run = begun(performances(folder, LSTM, batching="contiguous", stretch=0.0), tmp_path)
  carry = run.task.carry(4)
  assert jax.tree.leaves(carry)[0].shape == (4, 16)
  assert len(run.sample(max_tokens=5, seed=1)[0].ids) <= 5
  with pytest.raises(UserError, match="no attention weights"):
    run.arcs(tunes.scale(3))


def test_bad_files_are_told_before_the_first_step(folder, tmp_path, caplog):
  task = tasks.make(performances(folder), tmp_path / "a")
  next(iter(task.train_batches(0, (0,), 1)))
  assert "poem.mid is not a MIDI file" in caplog.text
  refusing = tasks.make(performances(folder, source="midi(bad='refuse')"), tmp_path / "b")
  with pytest.raises(UserError, match="poem.mid is not a MIDI file"):
    next(iter(refusing.train_batches(0, (0,), 1)))


def test_wrong_primes_are_told(run, tmp_path):
  (tmp_path / "poem.mid").write_text("no music")
  for prime, message in (
    (tmp_path / "poem.mid", "poem.mid is not a MIDI file"),
    (tmp_path / "no.mid", "cannot read .*no.mid"),
    (b"", "the prime is not a MIDI file"),
    ([1, 2, 3], "notes \\[n, 4\\]"),
    ([[0, 1, 200, 80.0]], "whole numbers of 0 to 127"),
    ([[1, 0, 60, 80.0]], "ends must be behind"),
    ([[0, np.nan, 60, 80.0]], "notes that are none"),
    ([[0, 1, 5, 80.0]], "can write"),
    ([[0, 1, 60.5, 80.0]], "whole numbers"),
    ([[0, 1e12, 60, 80.0]], "times below two hours"),
    ([[0, 1, 60, 80.0], [1, 2]], "notes \\[n, 4\\]"),
  ):
    with pytest.raises(UserError, match=message):
      run.sample(prime, seconds=1)
  with pytest.raises(UserError, match="seconds must be"):
    run.sample(seconds=0)
  with pytest.raises(UserError, match="--output"):
    run.save_samples(None)


def test_the_motif_is_overwritten_by_no_sample(run, motif, tmp_path):
  prime = tmp_path / "out-2.mid"
  prime.write_bytes(motif.read_bytes())
  with pytest.raises(UserError, match="would overwrite the motif"):
    run.save_samples(tmp_path / "out.mid", prime, seconds=1.0, num_samples=2)


def test_a_motif_is_read_as_the_runs_files_were(run, motif):
  before = run.config.data.source
  run.config.data.source = "midi(quarter=1.0)"  # the file's own is 0.5
  try:
    assert run.task.tokenizer.duration(run.prime(motif)) == pytest.approx(2 * 1.6)
  finally:
    run.config.data.source = before


def test_events_that_there_are_not_have_no_arcs(run, motif):
  with pytest.raises(UserError, match="queries must be a whole number from 0 to"):
    run.arcs(motif, queries=[10**6])


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    (dict(source="chorales", stretch=0.05), "stretch = 0.05, but chorales have a fixed grid"),
    (dict(source="chorales", batching="windows"), "rows that begin with a soprano"),
    (dict(source="chorales", row_length=30), "a multiple of 4"),
    (dict(source="midi", tokenizer="piano", vocab_size=312), 'tokenizer="chorales"'),
    (dict(source="midi"), r"write midi\(quarter=0.6\)"),
  ],
)
def test_configs_that_make_no_sense(chorales, tmp_path, fields, message):
  config = make_config(chorales, **fields)
  with pytest.raises(UserError, match=message):
    tasks.make(config, tmp_path)


def test_a_vocabulary_of_another_size(chorales, tmp_path):
  config = make_config(chorales, source="chorales", vocab_size=134)
  with pytest.raises(UserError, match="need 133"):
    tasks.make(config, tmp_path).claim()


def test_models_continue_one_motif_on_one_page(run, choir, motif):
  page = comparison([run, choir], motif, "the command", seconds=1.0, seed=1)
  assert page.count("<audio") == page.count("<svg") == 2 and "the command" in page
  assert "music_transformer" in page and "http://" not in page.replace("http://www.w3.org", "")
  with pytest.raises(UserError, match="no music"):
    comparison([types.SimpleNamespace(task=run.task, config=run.config)], motif)


def test_it_is_exported_with_its_events(run, motif, tmp_path):
  exported.write(run, tmp_path / "out")
  again = zoo.load(tmp_path / "out")
  assert again.sample(motif, seconds=1, seed=1) == run.sample(motif, seconds=1, seed=1)
  assert "save('out.mid')" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.slow
def test_the_commands(run, motif, tmp_path):
  sample = [f"--workdir={run.task.workdir}", f"--prime={motif}", "--seconds=1"]
  for module, flags, message in (
    ("sample", [*sample, f"--output={tmp_path}/out.mid"], ""),
    ("compare", [f"--workdirs={run.task.workdir},{run.task.workdir}", *sample[1:], f"--output={tmp_path}/p.html"], ""),
    ("sample", [*sample, "--prompt=la la", f"--output={tmp_path}/x.mid"], "--prompt, --input and --stop are for text"),
    ("sample", [sample[0]], "need --output=FILE.mid"),
    ("sample", [sample[0], f"--prime={tmp_path}/p.html", f"--output={tmp_path}/x.mid"], "p.html is not a MIDI file"),
  ):
    command = [sys.executable, "-m", f"attention_zoo.{module}", *flags]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"XLA_FLAGS": ""})
    assert done.returncode == (2 if message else 0) and message in done.stderr, done.stderr
    assert done.stderr.count("\n") == bool(message)
  assert {path.name for path in tmp_path.iterdir()} == {"out.mid", "out.png", "out.wav", "p.html"}
  assert (tmp_path / "p.html").read_text().count("<audio") == 2
