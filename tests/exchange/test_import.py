"""What is imported from transformers' folders computes here what it computes there, and goes back."""

import json
import shutil
import sys

import jax
import ml_collections
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

import attention_zoo as zoo
from attention_zoo import import_model
from attention_zoo.data import byte_bpe
from attention_zoo.data.tokenizer import BOS, EOS, PAD, UNK
from attention_zoo.exchange import huggingface, importing, reading
from attention_zoo.protocols import Initial
from attention_zoo.training import exported
from attention_zoo.training.init_from import init_from
from tests.exchange import folders
from tests.training.saved import assert_same

SENTENCES = ["one two three four", "fourteen twenty", ">>deu<<six seven eight", "Ünknown three!"]
TEXTS = [
  "the thin man's in there, and on  three   lines:\n\n\tIt's 1 2 3, 12 1212; we'll rely on a müde re-Entry -- don't!",
  "", " ", "the", " the the  ", "naïve ½ ² Ⅷ 漢字 ١٢٣ 🙂🙂 \u2028x\x85\x1c y_z \u00a0 ", "'s 's'S 'The",
]  # fmt: skip


def imported(source, to):
  """The run that the command makes of a folder."""
  flags = import_model.flags.FLAGS
  flags([sys.argv[0], f"--from={source}", f"--workdir={to}"])
  import_model.main()
  return zoo.load(to)


@pytest.fixture(scope="module")
def marian(tmp_path_factory):
  """(folder, run of it)."""
  directory = tmp_path_factory.mktemp("marian")
  folders.marian(directory / "there")
  return directory / "there", imported(directory / "there", directory / "here")


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
  directory = tmp_path_factory.mktemp("gpt2")
  folders.gpt2(directory / "there")
  return directory / "there", imported(directory / "there", directory / "here")


@pytest.fixture(scope="module")
def torch():
  torch = pytest.importorskip("torch")
  pytest.importorskip("transformers")
  return torch


def rows_of(folder):
  """The row there of each row here, and which are nobody's there."""
  config = json.loads((folder / "config.json").read_text())
  V, end = config["vocab_size"], config["eos_token_id"]
  if config["model_type"] == "gpt2":
    return reading.rows(V, begin=end, end=end)
  pad = config["pad_token_id"]
  return reading.rows(V, begin=config["decoder_start_token_id"], end=end, unknown=1, pad=pad)


def test_rows_by_hand():
  rows = reading.rows(7, begin=6, end=0, unknown=1, pad=6)  # Marian's: padding begins a translation
  assert rows.ids.tolist() == [6, 6, 0, 1, 2, 3, 4, 5]
  assert rows.forbidden.tolist() == [True, False, False, False, *[False] * 4]
  rows = reading.rows(4, begin=3, end=3)  # GPT-2's: one token begins and ends
  assert rows.ids.tolist() == [-1, 3, 3, -1, 0, 1, 2]
  assert rows.forbidden.tolist() == [True, True, False, True, False, False, False]
  assert rows.take(np.float32([1, 2, 3, 4])).tolist() == [0, 4, 4, 0, 1, 2, 3]
  assert rows.pieces(["a", "<s>", "b", "<end>"]) == ["<pad>", "<<s>>", "<end>", "<unk>", "a", "<s>", "b"]


# Beside transformers


def both(torch, folder, kind):
  import transformers

  model, report = getattr(transformers, kind).from_pretrained(folder, output_loading_info=True)
  assert not report["unexpected_keys"] and not report["mismatched_keys"]
  return model.eval(), transformers.AutoTokenizer.from_pretrained(folder)


def test_marian_has_the_same_logits(torch, marian):
  folder, run = marian
  model, _ = both(torch, folder, "AutoModelForSeq2SeqLM")
  rows = rows_of(folder)
  here = np.array([[5, 9, 7, EOS], [8, 6, 10, EOS]], np.int32)
  given = np.array([[BOS, 6, 11], [BOS, 12, 5]], np.int32)
  with torch.no_grad():
    wanted = model(
      input_ids=torch.from_numpy(rows.ids[here]), decoder_input_ids=torch.from_numpy(rows.ids[given])
    ).logits.numpy()
  positions = lambda x: np.broadcast_to(np.arange(x.shape[1], dtype=np.int32), x.shape)
  batch = {
    "source": here, "source_segments": np.ones_like(here), "source_positions": positions(here),
    "inputs": given, "target_segments": np.ones_like(given), "target_positions": positions(given),
  }  # fmt: skip
  got = run.task.model.apply({"params": run.params}, batch)
  free = [i for i in range(len(rows.ids)) if i not in (PAD, BOS)]
  np.testing.assert_allclose(got[..., free], wanted[..., rows.ids[free]], atol=1e-4)
  assert (np.asarray(got[..., [PAD, BOS]]) < -9e3).all()


def test_gpt2_has_the_same_logits(torch, gpt2):
  folder, run = gpt2
  model, _ = both(torch, folder, "AutoModelForCausalLM")
  rows = rows_of(folder)
  here = np.array([[BOS, 9, 7, 30], [8, 6, EOS, 200]], np.int32)
  with torch.no_grad():
    wanted = model(torch.from_numpy(rows.ids[here])).logits.numpy()
  positions = np.broadcast_to(np.arange(4, dtype=np.int32), here.shape)
  got = run.task.model.apply(
    {"params": run.params}, {"inputs": here, "segments": np.ones_like(here), "positions": positions}
  )
  free = ~rows.forbidden
  np.testing.assert_allclose(got[..., free], wanted[..., rows.ids[free]], atol=1e-4)
  assert (np.asarray(got[..., rows.forbidden]) < -9e3).all()


def test_marian_tokenizes_alike(torch, marian):
  folder, run = marian
  _, peer = both(torch, folder, "AutoModelForSeq2SeqLM")
  rows, ours = rows_of(folder), run.task.tokenizer
  targets = [folders.WORDS["target"], "neun drei vierzig", "ß?"]
  for sentence, ids in zip(SENTENCES, ours.encode(SENTENCES), strict=True):
    assert rows.ids[ids].tolist() == peer(sentence).input_ids[:-1]
  for sentence, ids in zip(targets, ours.target.encode(targets), strict=True):
    assert rows.ids[ids].tolist() == peer(text_target=sentence).input_ids[:-1]
  (ids,) = ours.target.encode(targets[:1])
  assert ours.target.decode([[*ids, EOS]]) == [peer.decode(rows.ids[ids], skip_special_tokens=True)]


def test_gpt2_tokenizes_alike(torch, gpt2):
  folder, run = gpt2
  _, peer = both(torch, folder, "AutoModelForCausalLM")
  rows, ours = rows_of(folder), run.task.tokenizer
  for text, ids in zip(TEXTS, ours.encode(TEXTS), strict=True):
    assert rows.ids[ids].tolist() == peer(text).input_ids
    assert ours.decode([ids]) == [peer.decode(rows.ids[ids])]


@pytest.mark.parametrize("beam_size", [1, 3])
def test_marian_translates_alike_there_and_back(torch, marian, tmp_path, beam_size):
  folder, run = marian
  huggingface.write(run, tmp_path / "back")
  ours = run.hypotheses(SENTENCES, beam_size=beam_size, alpha=0.0)
  for place, rows in ((folder, rows_of(folder).ids), (tmp_path / "back", np.arange(run.task.tokenizer.vocab_size))):
    model, peer = both(torch, place, "AutoModelForSeq2SeqLM")
    for sentence, (found,) in zip(SENTENCES, ours, strict=True):
      asked = peer(sentence, return_tensors="pt")
      limit = asked.input_ids.shape[1] + run.config.decode.extra_length
      options = {"early_stopping": "never", "length_penalty": 0.0} if beam_size > 1 else {}
      with torch.no_grad():
        theirs = model.generate(
          **asked, num_beams=beam_size, max_length=None, max_new_tokens=limit, renormalize_logits=True, do_sample=False,
          **options,
        )  # fmt: skip
      assert theirs[0, 1:].tolist() == rows[found.ids].tolist()


def test_gpt2_continues_alike_there_and_back(torch, gpt2, tmp_path):
  folder, run = gpt2
  huggingface.write(run, tmp_path / "back")
  for prompt in ("the thin", " 12", "on a"):
    (sample,) = run.sample(prompt, temperature=0.0, max_tokens=12)
    ids = [*run.task.tokenizer.encode([prompt])[0], *sample.ids]
    for place in (folder, tmp_path / "back"):
      model, peer = both(torch, place, "AutoModelForCausalLM")
      asked = peer(prompt, return_tensors="pt")
      with torch.no_grad():
        theirs = model.generate(**asked, max_new_tokens=12, do_sample=False, pad_token_id=0)
      assert peer.convert_ids_to_tokens(theirs[0]) == [run.task.tokenizer.raw[i] for i in ids]


def test_gpt2_goes_on_alike_for_a_hundred_tokens(torch, tmp_path):
  folders.gpt2(tmp_path / "there", n_positions=128, n_ctx=128)
  run = imported(tmp_path / "there", tmp_path / "here")
  model, peer = both(torch, tmp_path / "there", "AutoModelForCausalLM")
  (sample,) = run.sample("the thin", temperature=0.0, max_tokens=100)
  with torch.no_grad():
    asked = peer("the thin", return_tensors="pt")
    theirs = model.generate(**asked, max_new_tokens=100, do_sample=False, pad_token_id=0)
  ids = [*run.task.tokenizer.encode(["the thin"])[0], *sample.ids]
  assert len(sample.ids) == 100
  assert peer.convert_ids_to_tokens(theirs[0]) == [run.task.tokenizer.raw[i] for i in ids]


# By itself


def test_what_we_export_comes_back(tiny_run, tmp_path):
  run = zoo.load(tiny_run)
  huggingface.write(run, tmp_path / "there")
  other = imported(tmp_path / "there", tmp_path / "here")
  new = jax.tree.leaves_with_path(other.params)
  old = {jax.tree_util.keystr(path): value for path, value in jax.tree.leaves_with_path(run.params)}
  for path, value in new:
    expected = old.pop(jax.tree_util.keystr(path), np.zeros_like(value))  # biases of attention, which we have not
    np.testing.assert_array_equal(value, expected, err_msg=jax.tree_util.keystr(path))
  assert not old and "output_bias_V" not in other.params
  sentences = ["one two three", "four", "nine hundred and one"]
  assert other.translate(sentences, beam_size=2, alpha=0.6) == run.translate(sentences, beam_size=2, alpha=0.6)
  assert (tmp_path / "here" / "tokenizer.model").read_bytes() == (tiny_run / "tokenizer.model").read_bytes()
  assert other.config.data.languages == run.config.data.languages


def test_all_verbs_of_a_translation_model(marian, tmp_path):
  folder, run = marian
  translations = run.translate(SENTENCES)
  assert run.config.decode.beam_size == 3 and len(translations) == len(SENTENCES)
  (scored,) = run.score(["one two"], ["eins zwei"])
  assert scored.logprob < 0 and UNK not in scored.ids
  seen = run.attention("one two", "eins zwei")
  assert seen.source[-1] == "</s>" and seen.logprob == pytest.approx(scored.logprob, rel=1e-5)
  for split in ("dev", "test"):
    (tmp_path / f"{split}.eng").write_text("one two\nthree\n")
    (tmp_path / f"{split}.deu").write_text("eins zwei\ndrei\n")
  evaluated = zoo.load(run.task.workdir, data_dir=tmp_path).evaluate("test", beam_size=1)
  assert len(evaluated.samples) == 2 and all(np.isfinite(score.value) for score in evaluated.scores)
  card = json.loads((run.task.workdir / "card.json").read_text())
  assert card["origin"] == "there, a MarianMT folder of transformers"
  assert "From there, a MarianMT folder" in (run.task.workdir / "README.md").read_text()


def test_pieces_are_numbered_by_their_text(marian):
  folder, run = marian
  vocabulary = json.loads((folder / "vocab.json").read_text())
  rows, tokenizer = rows_of(folder), run.task.tokenizer
  (ids,) = tokenizer.encode([">>deu<< one two"])
  source = [vocabulary[piece] for piece in [">>deu<<", *processor(folder, "source").encode(" one two", out_type=str)]]
  assert rows.ids[ids].tolist() == source
  (ids,) = tokenizer.target.encode(["eins zwei"])
  pieces = processor(folder, "target").encode("eins zwei", out_type=str)
  assert rows.ids[ids].tolist() == [vocabulary[piece] for piece in pieces] and tokenizer.pieces(ids) == pieces
  assert tokenizer.target.decode([[BOS, *ids, EOS]]) == ["eins zwei"]
  assert tokenizer.target.decode([[*ids, UNK]], unknown="?") == ["eins zwei?"]
  assert tokenizer.encode(["one two"]) != tokenizer.target.encode(["one two"])


def processor(folder, side):
  import sentencepiece

  return sentencepiece.SentencePieceProcessor(model_file=str(folder / f"{side}.spm"))


def test_all_verbs_of_a_language_model(gpt2):
  _, run = gpt2
  samples = run.sample("", num_samples=3, max_tokens=20, seed=5)
  assert not {PAD, BOS, UNK} & {i for sample in samples for i in sample.ids}
  bias_V = np.asarray(run.params["output_bias_V"])
  assert (bias_V[[PAD, BOS, UNK]] == -1e4).all() and not np.delete(bias_V, [PAD, BOS, UNK]).any()
  (scored,) = run.score(["the thin man"])
  assert run.attention("the thin man").logprob == pytest.approx(scored.logprob, rel=1e-5)
  assert "".join(scored.pieces[:-1]) == "the▁thin▁man"


def test_parts_are_one_model(marian, tmp_path):
  folders.marian(tmp_path / "there", shards=3)
  found = importing.read(tmp_path / "there")
  assert_same(jax.device_get(marian[1].params), found.params)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_as_many_bits(marian, tmp_path, dtype):
  folder = shutil.copytree(marian[0], tmp_path / "folder")
  stored = {name: x.astype(dtype) for name, x in safetensors.numpy.load_file(folder / "model.safetensors").items()}
  safetensors.numpy.save_file(stored, folder / "model.safetensors")
  rounded = jax.tree.map(lambda x: x.astype(dtype).astype(np.float32), importing.read(marian[0]).params)
  found = importing.read(folder).params
  found["output_bias_V"] = rounded["output_bias_V"]  # -10,000 is not rounded
  assert_same(found, rounded)


def test_links_as_in_hugging_faces_cache(marian, tmp_path):
  snapshot, blobs = tmp_path / "models--a--b/snapshots/0f3a", tmp_path / "models--a--b/blobs"
  snapshot.mkdir(parents=True), blobs.mkdir()
  for i, path in enumerate(marian[0].iterdir()):
    (blobs / f"{i:040x}").write_bytes(path.read_bytes())
    (snapshot / path.name).symlink_to(f"../../blobs/{i:040x}")
  assert_same(importing.read(snapshot).params, importing.read(marian[0]).params)


def test_names_with_a_prefix_are_the_same_model(gpt2, tmp_path):
  folders.gpt2(tmp_path / "there", prefix="transformer.")
  assert_same(jax.device_get(gpt2[1].params), importing.read(tmp_path / "there").params)


def test_fine_tuning_begins_with_it(marian):
  stored = exported.read(marian[1].task.workdir)
  config = ml_collections.ConfigDict({"train": {"init_from": str(marian[1].task.workdir), "init_map": ()}})
  drawn = jax.tree.map(np.zeros_like, Initial(stored.params, stored.variables))
  found, taken = init_from(jax.device_put(drawn), config)
  assert_same(found.params, stored.params)
  assert not taken.new and not taken.left


# Byte-level BPE


def naive(word, ranks):
  """The published algorithm: all occurrences of the pair that was learnt first are joined, again and again."""
  while len(word) > 1:
    pair = min(zip(word, word[1:], strict=False), key=lambda pair: ranks.get(pair, len(ranks)))
    if pair not in ranks:
      return word
    joined, i = [], 0
    while i < len(word):
      both = tuple(word[i : i + 2]) == pair
      joined.append("".join(word[i : i + 1 + both]))
      i += 1 + both
    word = joined
  return word


def test_bytes_are_joined_as_published():
  rng = np.random.default_rng(0)
  letters = byte_bpe.characters()[97:101]
  pieces, merges = [*letters], []
  for _ in range(30):
    pair = tuple(rng.choice(pieces, 2))
    if "".join(pair) not in pieces:
      merges.append(pair)
      pieces.append("".join(pair))
  model = byte_bpe.dump(["<pad>", "<s>", "<end>", "<unk>", *pieces], merges)
  tokenizer, ranks = byte_bpe.parse(model, "x"), {pair: rank for rank, pair in enumerate(merges)}
  for _ in range(200):
    word = "".join(rng.choice(letters, rng.integers(1, 30)))
    (ids,) = tokenizer.encode([word])
    assert tokenizer.pieces(ids) == naive([*word], ranks)


def test_any_text_comes_back(gpt2):
  tokenizer = gpt2[1].task.tokenizer
  every = "".join(map(chr, [*range(0x300), *range(0x2000, 0x2100), 0x1F642, 0x10FFFF]))
  texts = [*TEXTS, every]
  assert tokenizer.decode(tokenizer.encode(texts)) == texts
  assert not any(UNK in ids for ids in tokenizer.encode(texts)) and tokenizer.unknown(every) == []
