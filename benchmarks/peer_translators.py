"""The peers of `benchmarks.decode`: Hugging Face's Marian and CTranslate2 with the parameters of our Transformer.

Both add sinusoids to scaled embeddings and normalise after the residual, as the paper does; only the order of sines and
cosines and the epsilon of the normalisation differ in the class and are set to ours.
"""

import copy

import numpy as np
import torch
from transformers import MarianConfig, MarianMTModel


def hugging_face(config, params, positions, *, pad, bos, eos):
  """A MarianMTModel. config: of `models/translation/transformer.py`; params: nested dict of NumPy arrays;
  positions [length, D]."""
  c = config
  model = MarianMTModel(
    MarianConfig(
      vocab_size=c.vocab_size, d_model=c.d_model, activation_function="relu", scale_embedding=True,
      encoder_layers=c.num_encoder_layers, encoder_ffn_dim=c.d_ff, encoder_attention_heads=c.num_heads,
      decoder_layers=c.num_decoder_layers, decoder_ffn_dim=c.d_ff, decoder_attention_heads=c.num_heads,
      max_position_embeddings=len(positions), pad_token_id=pad, bos_token_id=bos, eos_token_id=eos,
      forced_eos_token_id=None, decoder_start_token_id=bos,
    )
  ).eval().requires_grad_(False)  # fmt: skip
  table = params["embedding"]["table_VD"]
  state = {
    "model.shared.weight": table,
    "model.encoder.embed_tokens.weight": table,
    "model.decoder.embed_tokens.weight": table,
    "lm_head.weight": table,
    "model.encoder.embed_positions.weight": positions,
    "model.decoder.embed_positions.weight": positions,
  }
  for side in ("encoder", "decoder"):
    for i in range(c.num_encoder_layers if side == "encoder" else c.num_decoder_layers):
      layer, at = params[side][f"layer_{i}"], f"model.{side}.layers.{i}"
      for ours, theirs in (("self_attention", "self_attn"), ("cross_attention", "encoder_attn")):
        if ours in layer:
          for name, leaf in (("query", "kernel_DNK"), ("key", "kernel_DNK"), ("value", "kernel_DNH")):
            state[f"{at}.{theirs}.{name[0]}_proj.weight"] = layer[ours][name][leaf].reshape(c.d_model, -1).T
          state[f"{at}.{theirs}.out_proj.weight"] = layer[ours]["output"]["kernel_NHD"].reshape(-1, c.d_model).T
          _norm(state, f"{at}.{theirs}_layer_norm", layer[f"{ours}_norm"])
      for ours, theirs, letters in (("wi", "fc1", "DF"), ("wo", "fc2", "FD")):
        state[f"{at}.{theirs}.weight"] = layer["feed_forward"][ours][f"kernel_{letters}"].T
        state[f"{at}.{theirs}.bias"] = layer["feed_forward"][ours][f"bias_{letters[1]}"]
      _norm(state, f"{at}.final_layer_norm", layer["feed_forward_norm"])
  places = model.state_dict(keep_vars=True)
  for name in places.keys() & state.keys():
    places[name].copy_(torch.from_numpy(np.array(state[name])))
  for name, place in places.items():
    if name.endswith("_proj.bias"):
      place.zero_()
  for module in model.modules():
    if isinstance(module, torch.nn.LayerNorm):
      module.eps = 1e-6
  return model


def _norm(state, name, values):
  state[f"{name}.weight"], state[f"{name}.bias"] = values["scale"], values["bias"]


def hugging_face_search(model, source, *, beam_size, length):
  """Tokens [rows, length] of the best hypotheses; scores are log-probabilities, not divided by lengths."""
  beams = (
    dict(num_beams=beam_size, length_penalty=0.0, early_stopping=False)
    if beam_size > 1
    else dict(num_beams=1)
  )
  ids = torch.from_numpy(source).long()
  with torch.inference_mode():
    found = model.generate(
      ids, attention_mask=torch.ones_like(ids), do_sample=False, max_length=None, max_new_tokens=length, **beams
    )  # fmt: skip
  return found[:, 1:].numpy()


def ctranslate2_translator(model, directory, *, quantization, inter_threads, intra_threads):
  """A CTranslate2 translator on the CPU with the parameters of a `hugging_face` model.

  quantization: None for float32, or "int8". The model is written to `directory` once.
  """
  import ctranslate2
  from ctranslate2.converters.transformers import BartLoader

  if not (directory / "model.bin").exists():
    model = copy.deepcopy(model)  # the conversion changes parameters where they lie
    model.config.normalize_before = model.config.normalize_embedding = False
    spec = BartLoader().get_model_spec(model)
    words = ["<pad>", "<s>", "</s>", "<unk>", *map(str, range(4, model.config.vocab_size))]
    spec.register_source_vocabulary(words)
    spec.register_target_vocabulary(words)
    spec.config.bos_token, spec.config.eos_token, spec.config.unk_token = "<s>", "</s>", "<unk>"
    spec.config.decoder_start_token = "<s>"
    spec.config.layer_norm_epsilon = 1e-6
    spec.validate()
    spec.optimize(quantization=quantization)
    directory.mkdir(parents=True, exist_ok=True)
    spec.save(str(directory))
  return ctranslate2.Translator(
    str(directory), device="cpu", compute_type=quantization or "float32",
    inter_threads=inter_threads, intra_threads=intra_threads,
  )  # fmt: skip


def ctranslate2_search(translator, source, *, beam_size, length, batch):
  """Tokens [rows, length] of the best hypotheses, `batch` sentences at a time."""
  found = translator.translate_batch(
    [[str(token) for token in row] for row in source],
    beam_size=beam_size, length_penalty=0.0, max_decoding_length=length, max_batch_size=batch,
  )  # fmt: skip
  special = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3}
  rows = [[special[word] if word in special else int(word) for word in one.hypotheses[0]] for one in found]
  return np.array([row + [-1] * (length - len(row)) for row in rows])
