"""Folders as transformers has them, of random models, written by hand: MarianMT as OPUS-MT is published, and GPT-2."""

import io
import json

import numpy as np
import safetensors.numpy

from attention_zoo.data.byte_bpe import characters

WORDS = {
  "source": "one two three four five six seven eight nine ten eleven twelve thirteen fourteen twenty thirty forty-one",
  "target": "eins zwei drei vier fünf sechs sieben acht neun zehn elf zwölf dreizehn vierzehn zwanzig dreißig vierzig",
}


def write(folder, name, value):
  (folder / name).write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")


def draw(shapes, seed=0, deviation=0.2):
  rng = np.random.default_rng(seed)
  norm = lambda name: "norm.weight" in name or "ln_" in name and name.endswith("weight")
  return {
    name: (rng.normal(0, deviation, shape) + norm(name)).astype(np.float32) for name, shape in sorted(shapes.items())
  }


def pieces(side, size=40) -> bytes:
  """A SentencePiece model whose own ids are not Marian's."""
  import sentencepiece

  model = io.BytesIO()
  lines = [" ".join(pair) for pair in zip(WORDS[side].split(), reversed(WORDS[side].split()), strict=True)] * 20
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(lines), model_writer=model, vocab_size=size, model_type="unigram", minloglevel=2,
    hard_vocab_limit=False, num_threads=1,
  )  # fmt: skip
  return model.getvalue()


def marian(folder, *, shards=1, **config):
  """(config, arrays) of a MarianMT folder: post-LN, swish, sines, one vocab.json for two SentencePiece models."""
  import sentencepiece

  folder.mkdir(parents=True)
  spoken = set()
  for side in ("source", "target"):
    (folder / f"{side}.spm").write_bytes(pieces(side))
    processor = sentencepiece.SentencePieceProcessor(model_file=str(folder / f"{side}.spm"))
    spoken |= {processor.id_to_piece(i) for i in range(processor.get_piece_size())}
  spoken -= {"</s>", "<unk>", "<s>"}
  vocabulary = ["</s>", "<unk>", *sorted(spoken), ">>deu<<", "<pad>"]
  write(folder, "vocab.json", {piece: i for i, piece in enumerate(vocabulary)})
  V, pad = len(vocabulary), len(vocabulary) - 1
  config = {
    "architectures": ["MarianMTModel"], "model_type": "marian", "vocab_size": V, "decoder_vocab_size": V, "d_model": 16,
    "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "activation_function": "swish", "dropout": 0.1,
    "attention_dropout": 0.0, "activation_dropout": 0.0, "scale_embedding": True, "static_position_embeddings": True,
    "max_position_embeddings": 64, "share_encoder_decoder_embeddings": True, "tie_word_embeddings": True,
    "add_bias_logits": False, "add_final_layer_norm": False, "normalize_before": False, "normalize_embedding": False,
    "is_encoder_decoder": True, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": pad,
    "decoder_start_token_id": pad, "forced_eos_token_id": None,
  } | config  # fmt: skip
  write(folder, "config.json", config)
  generation = {
    "bad_words_ids": [[pad]], "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": pad, "decoder_start_token_id": pad,
    "num_beams": 3, "max_length": 64, "renormalize_logits": True,
  }  # fmt: skip
  write(folder, "generation_config.json", generation)
  write(
    folder, "tokenizer_config.json",
    {"tokenizer_class": "MarianTokenizer", "source_lang": "eng", "target_lang": "deu", "separate_vocabs": False},
  )  # fmt: skip
  D, F = config["d_model"], config["encoder_ffn_dim"]
  shapes = {"model.shared.weight": (V, D), "final_logits_bias": (1, V)}
  for side, attentions in (("encoder", ("self_attn",)), ("decoder", ("self_attn", "encoder_attn"))):
    for i in range(config[f"{side}_layers"]):
      at = f"model.{side}.layers.{i}"
      linears = {f"{name}.{part}_proj": (D, D) for name in attentions for part in ("q", "k", "v", "out")}
      for name, shape in (linears | {"fc1": (F, D), "fc2": (D, F)}).items():
        shapes[f"{at}.{name}.weight"], shapes[f"{at}.{name}.bias"] = shape, shape[:1]
      for name in (*(f"{name}_layer_norm" for name in attentions), "final_layer_norm"):
        shapes[f"{at}.{name}.weight"] = shapes[f"{at}.{name}.bias"] = (D,)
  arrays = draw(shapes)
  put(folder, arrays, shards)
  return config, arrays


def gpt2(folder, *, prefix="", **config):
  """(config, arrays) of a GPT-2 folder, with a vocabulary of bytes and some merges."""
  folder.mkdir(parents=True)
  space = characters()[ord(" ")]
  merges = [
    ("t", "h"), ("th", "e"), (space, "the"), ("i", "n"), (space, "a"), ("o", "n"), ("r", "e"), (space, space),
    ("\u00c3", "\u00bc"), ("l", "l"), ("'", "s"), ("1", "2"),
  ]  # fmt: skip
  vocabulary = [*sorted(characters()), *("".join(pair) for pair in merges), "<|endoftext|>"]
  write(folder, "vocab.json", {piece: i for i, piece in enumerate(vocabulary)})
  lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
  (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
  V, end = len(vocabulary), len(vocabulary) - 1
  config = {
    "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "vocab_size": V, "n_embd": 16, "n_head": 2,
    "n_layer": 2, "n_positions": 32, "n_ctx": 32, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5,
    "resid_pdrop": 0.1, "embd_pdrop": 0.1, "attn_pdrop": 0.1, "bos_token_id": end, "eos_token_id": end,
  } | config  # fmt: skip
  write(folder, "config.json", config)
  D, L, Z = config["n_embd"], config["n_layer"], config["n_positions"]
  shapes = {"wte.weight": (V, D), "wpe.weight": (Z, D), "ln_f.weight": (D,), "ln_f.bias": (D,)}
  for i in range(L):
    linears = {"attn.c_attn": (D, 3 * D), "attn.c_proj": (D, D), "mlp.c_fc": (D, 4 * D), "mlp.c_proj": (4 * D, D)}
    for name, shape in linears.items():
      shapes[f"h.{i}.{name}.weight"], shapes[f"h.{i}.{name}.bias"] = shape, shape[1:]
    for name in ("ln_1", "ln_2"):
      shapes[f"h.{i}.{name}.weight"] = shapes[f"h.{i}.{name}.bias"] = (D,)
  arrays = {prefix + name: value for name, value in draw(shapes).items()}
  masks = {f"{prefix}h.{i}.attn.bias": np.tril(np.ones((1, 1, Z, Z), np.float32)) for i in range(L)}
  put(folder, arrays | ({} if prefix else masks))
  return config, arrays


def put(folder, arrays, shards=1):
  """The arrays as model.safetensors, or in parts with their index."""
  if shards == 1:
    (folder / "model.safetensors").write_bytes(safetensors.numpy.save(arrays, {"format": "pt"}))
    return
  names, places = sorted(arrays), {}
  for i in range(shards):
    file = f"model-{i + 1:05}-of-{shards:05}.safetensors"
    part = {name: arrays[name] for name in names[i::shards]}
    (folder / file).write_bytes(safetensors.numpy.save(part, {"format": "pt"}))
    places |= dict.fromkeys(part, file)
  write(folder, "model.safetensors.index.json", {"metadata": {}, "weight_map": places})


LETTERS = "abcdefghijklmnopqrstuvwxyz"
PIECES = [
  "[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{c}" for c in LETTERS), ".", ",", "'", "!",
  "?", "-", "the", "##ing", "th", "un", "##able", "one", "two", "three",
]  # fmt: skip


def bert(folder, *, kind="bert", pooler=True, next_sentence=True, classes=0, tags=(), old_names=False, **config):
  """(config, arrays) of a BERT or RoBERTa folder: with the outputs of masks and of the next sentence, or with those of
  a number of classes or of tags."""
  folder.mkdir(parents=True)
  if kind == "bert":
    vocabulary = PIECES
    (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in vocabulary), encoding="utf-8")
  else:
    merges = [("t", "h"), ("th", "e"), (characters()[ord(" ")], "the"), ("i", "n"), ("o", "n")]
    vocabulary = ["<s>", "<pad>", "</s>", "<unk>", *sorted(characters()), *map("".join, merges), "<mask>"]
    write(folder, "vocab.json", {piece: i for i, piece in enumerate(vocabulary)})
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
  V, shift = len(vocabulary), 2 if kind == "roberta" else 0
  config = {
    "model_type": kind, "vocab_size": V, "hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 2,
    "intermediate_size": 24, "max_position_embeddings": 24 + shift, "type_vocab_size": 1 if shift else 2,
    "hidden_act": "gelu", "layer_norm_eps": 1e-5 if shift else 1e-12, "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1, "pad_token_id": 1 if shift else 0,
  } | ({"bos_token_id": 0, "eos_token_id": 2} if shift else {}) | config  # fmt: skip
  labels = tags or [f"class {i}" for i in range(classes)]
  if labels:
    what = "TokenClassification" if tags else "SequenceClassification"
    config = {"architectures": [f"{'Roberta' if shift else 'Bert'}For{what}"]} | config
    config["id2label"] = dict(zip(map(str, range(len(labels))), labels, strict=True))
  write(folder, "config.json", config)
  D, F, Z = (config[name] for name in ("hidden_size", "intermediate_size", "max_position_embeddings"))
  linears, norms = {}, ["embeddings.LayerNorm"]
  shapes = {"embeddings.word_embeddings.weight": (V, D), "embeddings.position_embeddings.weight": (Z, D)}
  shapes["embeddings.token_type_embeddings.weight"] = (config["type_vocab_size"], D)
  for i in range(config["num_hidden_layers"]):
    at = f"encoder.layer.{i}"
    linears |= {f"{at}.attention.self.{name}": (D, D) for name in ("query", "key", "value")}
    linears |= {f"{at}.attention.output.dense": (D, D), f"{at}.intermediate.dense": (F, D)}
    linears[f"{at}.output.dense"] = (D, F)
    norms += [f"{at}.attention.output.LayerNorm", f"{at}.output.LayerNorm"]
  if pooler:
    linears["pooler.dense"] = (D, D)
  shapes = {f"{kind}.{name}": shape for name, shape in shapes.items()}
  linears, norms = {f"{kind}.{name}": shape for name, shape in linears.items()}, [f"{kind}.{name}" for name in norms]
  if shift and classes:
    linears |= {"classifier.dense": (D, D), "classifier.out_proj": (classes, D)}
  elif labels:
    linears["classifier"] = (len(labels), D)
  else:
    head = {"bert": "cls.predictions.transform.dense", "roberta": "lm_head.dense"}[kind]
    linears[head] = (D, D)
    norms.append(head.replace("dense", "LayerNorm" if kind == "bert" else "layer_norm"))
    shapes["cls.predictions.bias" if kind == "bert" else "lm_head.bias"] = (V,)
    if next_sentence and kind == "bert":
      linears["cls.seq_relationship"] = (2, D)
  for name, shape in linears.items():
    shapes[f"{name}.weight"], shapes[f"{name}.bias"] = shape, shape[:1]
  names = ("gamma", "beta") if old_names else ("weight", "bias")
  rng = np.random.default_rng(1)
  arrays = draw(shapes, deviation=0.3)
  for name in norms:
    arrays[f"{name}.{names[0]}"] = (1 + rng.normal(0, 0.2, D)).astype(np.float32)
    arrays[f"{name}.{names[1]}"] = rng.normal(0, 0.2, D).astype(np.float32)
  put(folder, arrays)
  return config, arrays


def xlnet(folder, **config):
  """(config, arrays) of an XLNet folder."""
  import sentencepiece

  folder.mkdir(parents=True)
  model = io.BytesIO()
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter([WORDS["source"]] * 20), model_writer=model, vocab_size=48, model_type="unigram",
    minloglevel=2, hard_vocab_limit=False, num_threads=1,
    control_symbols=["<cls>", "<sep>", "<pad>", "<mask>", "<eod>", "<eop>"],
  )  # fmt: skip
  (folder / "spiece.model").write_bytes(model.getvalue())
  V = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue()).get_piece_size()
  config = {
    "model_type": "xlnet", "vocab_size": V, "d_model": 16, "n_layer": 2, "n_head": 2, "d_head": 8, "d_inner": 24,
    "ff_activation": "gelu", "untie_r": True, "attn_type": "bi", "layer_norm_eps": 1e-12, "dropout": 0.1, "mem_len": 4,
    "clamp_len": -1, "same_length": False, "bi_data": False, "pad_token_id": 5, "bos_token_id": 1, "eos_token_id": 2,
  } | config  # fmt: skip
  write(folder, "config.json", config)
  D, N, K, F = config["d_model"], config["n_head"], config["d_head"], config["d_inner"]
  shapes = {"transformer.word_embedding.weight": (V, D), "lm_loss.bias": (V,), "transformer.mask_emb": (1, 1, D)}
  for i in range(config["n_layer"]):
    at = f"transformer.layer.{i}"
    shapes |= {f"{at}.rel_attn.{name}": (D, N, K) for name in "qkvor"}
    shapes |= {f"{at}.rel_attn.{name}": (N, K) for name in ("r_r_bias", "r_s_bias", "r_w_bias")}
    shapes[f"{at}.rel_attn.seg_embed"] = (2, N, K)
    for name in ("rel_attn.layer_norm", "ff.layer_norm"):
      shapes[f"{at}.{name}.weight"] = shapes[f"{at}.{name}.bias"] = (D,)
    shapes |= {f"{at}.ff.layer_1.weight": (F, D), f"{at}.ff.layer_1.bias": (F,)}
    shapes |= {f"{at}.ff.layer_2.weight": (D, F), f"{at}.ff.layer_2.bias": (D,)}
  arrays = draw(shapes, deviation=0.3)
  put(folder, arrays)
  return config, arrays
