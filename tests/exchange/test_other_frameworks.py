"""What is written for other frameworks computes there what it computes here."""

import json
import types

import jax
import numpy as np
import pytest
import safetensors
import sentencepiece

import attention_zoo as zoo
from attention_zoo import tasks
from attention_zoo.data.tokenizer import BOS, EOS, Tokenizer
from attention_zoo.errors import UserError
from attention_zoo.exchange import ctranslate2, huggingface, plain
from attention_zoo.training import safetensors_file
from tests.training.saved import assert_same

SENTENCES = ["one two three four", "five", "nine eight seven six five"]


@pytest.fixture(scope="module")
def run(tiny_run):
  return zoo.load(tiny_run)


def changed(tiny_run, run, **model):
  """A run of the same vocabulary with another model, drawn at random."""
  config = run.config.copy_and_resolve_references()
  config.model.update(**model)
  task = tasks.make(config, tiny_run)
  drawn = jax.jit(task.init)(jax.random.key(7))
  noisy = jax.tree.map(lambda x: x + 0.1 * jax.random.normal(jax.random.key(x.size), x.shape), drawn.params)
  other = task.runner(noisy, drawn.variables, checkpoint="latest", step="0")
  other.parents = [0]
  return other


KINDS = {
  "as_trained": {},
  "biases": {"bias": True, "activation": "gelu"},
  "pre_norm": {"residual": "pre", "positions": "learned", "max_length": 128, "activation": "gelu_tanh"},
}


@pytest.fixture(params=KINDS)
def kind(request, tiny_run, run):
  return changed(tiny_run, run, **KINDS[request.param]) if KINDS[request.param] else run


@pytest.mark.parametrize("beam_size", [1, 4])
def test_ctranslate2_gives_the_same_tokens(kind, tmp_path, beam_size):
  peer = pytest.importorskip("ctranslate2")
  ctranslate2.write(kind, tmp_path / "to")
  vocabulary = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "to" / "tokenizer.model"))
  pieces = lambda ids: [vocabulary.id_to_piece(int(i)) for i in ids]
  translator = peer.Translator(str(tmp_path / "to"), device="cpu", compute_type="float32", intra_threads=1)
  ours = kind.hypotheses(SENTENCES, beam_size=beam_size, alpha=0.0)
  for sentence, (found,) in zip(SENTENCES, ours, strict=True):
    ids = vocabulary.encode(sentence)
    limit = len(ids) + 1 + kind.config.decode.extra_length
    (theirs,) = translator.translate_batch(
      [pieces(ids)], beam_size=beam_size, length_penalty=0.0, max_decoding_length=limit
    )
    assert theirs.hypotheses[0] == pieces(i for i in found.ids if i != EOS)
    # Not the scores of its search, which are 1e-4 nats a token off those that it gives the same tokens here.
    (scored,) = translator.score_batch([pieces(ids)], theirs.hypotheses[:1])
    assert sum(scored.log_probs[: len(found.ids)]) == pytest.approx(found.logprob, rel=1e-5)


def test_ctranslate2_int8(run, tmp_path):
  peer = pytest.importorskip("ctranslate2")
  ctranslate2.write(run, tmp_path / "to", "int8")
  assert peer.contains_model(str(tmp_path / "to"))
  (found,) = peer.Translator(str(tmp_path / "to"), intra_threads=1).translate_batch([["\u2581one"]])
  assert found.hypotheses


def test_marian_has_the_same_logits(tiny_run, run, tmp_path):
  torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
  for name in ("as_trained", "biases"):
    other = changed(tiny_run, run, **KINDS[name])
    huggingface.write(other, tmp_path / name)
    model, report = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path / name, output_loading_info=True)
    assert not report["unexpected_keys"] and not report["mismatched_keys"]
    ids = np.array([[5, 9, 7, EOS], [8, 6, 10, EOS]], np.int32)
    given = np.array([[BOS, 6, 11], [BOS, 12, 5]], np.int32)
    with torch.no_grad():
      wanted = model.eval()(
        input_ids=torch.from_numpy(ids).long(), decoder_input_ids=torch.from_numpy(given).long()
      ).logits.numpy()
    positions = lambda x: np.broadcast_to(np.arange(x.shape[1], dtype=np.int32), x.shape)
    batch = {
      "source": ids, "source_segments": np.ones_like(ids), "source_positions": positions(ids),
      "inputs": given, "target_segments": np.ones_like(given), "target_positions": positions(given),
    }  # fmt: skip
    got = other.task.model.apply({"params": other.params}, batch)
    np.testing.assert_allclose(got, wanted, atol=1e-4 * np.abs(wanted).max())


def test_gpt2_has_the_same_logits(tmp_path):
  torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
  module = zoo.build(
    "transformer_lm", vocab_size=37, d_model=16, d_ff=24, num_heads=2, d_k=8, d_v=8, num_layers=2, max_length=12
  )
  ids = np.array([[5, 9, 7, 30], [8, 6, 10, 2]], np.int32)
  positions = np.broadcast_to(np.arange(4, dtype=np.int32), ids.shape)
  batch = {"inputs": ids, "segments": np.ones_like(ids), "positions": positions}
  drawn = module.init(jax.random.key(0), batch)["params"]
  params = jax.tree.map(lambda x: x + 0.1 * jax.random.normal(jax.random.key(x.size), x.shape), drawn)
  config = types.SimpleNamespace(
    model=types.SimpleNamespace(name="transformer_lm"), data=types.SimpleNamespace(source="x")
  )
  task = types.SimpleNamespace(model_config=module.config, workdir=tmp_path)
  huggingface.write(types.SimpleNamespace(config=config, task=task, params=params, step="0"), tmp_path / "to")
  model, report = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "to", output_loading_info=True)
  assert not report["unexpected_keys"] and not report["mismatched_keys"]
  with torch.no_grad():
    wanted = model.eval()(torch.from_numpy(ids).long()).logits.numpy()
  got = module.apply({"params": params}, batch)
  np.testing.assert_allclose(got, wanted, atol=1e-5 * np.abs(wanted).max())


def test_marian_tokenizer(run, tmp_path):
  transformers = pytest.importorskip("transformers")
  huggingface.write(run, tmp_path / "to")
  tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "to")
  ours = Tokenizer(tmp_path / "to" / "source.spm")
  for sentence in SENTENCES:
    assert tokenizer(sentence)["input_ids"] == [*ours.encode([sentence])[0], EOS]


def test_marian_names_without_transformers(run, tmp_path):
  """What can be seen without it: each array once, in its shape, in an order of d_model that undoes itself."""
  huggingface.write(run, tmp_path / "to", "bfloat16")
  c = run.task.model_config
  content = (tmp_path / "to/model.safetensors").read_bytes()
  state = {name: value["shape"] for name, value in safetensors.deserialize(content)}
  assert state["model.shared.weight"] == [c.vocab_size, c.d_model]
  assert state["model.decoder.layers.0.encoder_attn.k_proj.weight"] == [c.d_model, c.d_model]
  assert json.loads((tmp_path / "to/config.json").read_text())["decoder_start_token_id"] == BOS
  order = np.r_[0 : c.d_model : 2, 1 : c.d_model : 2]
  params = jax.device_get(run.params)
  assert_same(huggingface.reordered(huggingface.reordered(params, order), np.argsort(order)), params)


def test_plain(run, tmp_path):
  plain.write(run, tmp_path / "to")
  back = safetensors_file.parse((tmp_path / "to/model.safetensors").read_bytes(), "x")
  assert_same(back["params"], jax.device_get(run.params))
  names = json.loads((tmp_path / "to/names.json").read_text())
  shape = [*run.params["embedding"]["table_VD"].shape]
  assert names["params/embedding/table_VD"] == {"shape": shape, "axes": "VD", "type": "float32"}


@pytest.mark.parametrize(
  ("write", "model", "match"),
  [
    (huggingface.write, {"residual": "pre"}, "Marian has no model with config.model.residual = 'pre'"),
    (huggingface.write, {"decoder_attention": "alibi"}, "decoder_attention = 'alibi'"),
    (ctranslate2.write, {"positions": "none", "encoder_attention": "shaw(max_distance=4)"}, "positions = 'none'"),
    (ctranslate2.write, {"d_k": 3}, "heads of d_model / num_heads"),
    (ctranslate2.write, {"position_mode": "concatenate"}, "position_mode = 'concatenate'"),
  ],
)
def test_models_that_there_are_not(tiny_run, run, tmp_path, write, model, match):
  other = changed(tiny_run, run, **model)
  with pytest.raises(UserError, match=match):
    write(other, tmp_path / "to")
  assert not [*tmp_path.iterdir()]


def test_int8_is_not_for_transformers(run, tmp_path):
  with pytest.raises(UserError, match="float32 or bfloat16"):
    huggingface.write(run, tmp_path / "to", "int8")
