"""The rows of `benchmarks.pretraining` with LSTMs: "bilstm", words and their characters without any language model (on
CoNLL with a CRF, as all rows of words); ELMo, TagLM and ULMFiT, each beside the same model that begins at random.

"random_ulmfit" learns all layers at one rate from the first step on: discriminative rates and gradual unfreezing, which
"ulmfit" has, are for layers that know something.
"""


def _words(args, data, folder, seed, name):
  """A tagger or classifier of whole words."""
  from attention_zoo.configs.pretraining import bilstm_crf_quickstart, elmo_quickstart, taglm_quickstart
  from benchmarks.pretraining import sizes, tuned

  made = {"bilstm": bilstm_crf_quickstart, "elmo": elmo_quickstart, "taglm": taglm_quickstart}[name].get_config()
  model = made.model.to_dict()
  config = tuned(args, data, folder, seed, model)
  config.model.num_layers = model["num_layers"]
  if name != "bilstm":
    config.model.update(lm_d_model=sizes(args)["d_model"], lm_num_layers=sizes(args)["num_layers"])
    config.train.init_map = made.train.init_map
  config.data.tokenizer = "words"
  config.head.update(dict(name="crf", dropout=0.0) if data == "conll" else dict(pooling="concat"))
  config.optimizer.update(name="adam(b1=0.9, b2=0.999, eps=1e-8)", learning_rate=2e-3, clip_norm=5.0)
  return config


def bilstm(args, data, folder, text, seed):
  return _words(args, data, folder, seed, "bilstm")


def random_elmo(args, data, folder, text, seed):
  """ELMo of a language model that has learnt nothing."""
  return _words(args, data, folder, seed, "elmo")


def random_taglm(args, data, folder, text, seed):
  """TagLM of a language model that has learnt nothing."""
  return _words(args, data, folder, seed, "taglm")


def _with_bilm(args, data, folder, text, seed, name):
  from attention_zoo.configs.pretraining import bilm_quickstart
  from benchmarks.pretraining import pretrained

  base = bilm_quickstart.get_config()
  base.data.update(source="text(documents='line')", marks=False)
  config = _words(args, data, folder, seed, name)
  config.train.init_from = pretrained(args, data, text, "bilm", base)
  return config


def elmo(args, data, folder, text, seed):
  return _with_bilm(args, data, folder, text, seed, "elmo")


def taglm(args, data, folder, text, seed):
  return _with_bilm(args, data, folder, text, seed, "taglm")


def _ulmfit(args, data, folder, seed, **fields):
  from attention_zoo.configs.pretraining import ulmfit_lm_quickstart
  from benchmarks.pretraining import tuned

  config = tuned(args, data, folder, seed, ulmfit_lm_quickstart.MODEL | fields)
  config.data.tokenizer = "byte_bpe"
  if data == "sst2":
    config.head.update(pooling="concat", width=50)
  config.optimizer.update(
    name="adam(b1=0.7, b2=0.99, eps=1e-8)", schedule=f"slanted_triangular(total_steps={args.steps})",
    learning_rate=5e-3,
  )  # fmt: skip
  return config


def random_ulmfit(args, data, folder, text, seed):
  return _ulmfit(args, data, folder, seed)


def ulmfit(args, data, folder, text, seed):
  from attention_zoo.configs.pretraining import ulmfit_lm_quickstart
  from benchmarks.pretraining import pretrained

  base = ulmfit_lm_quickstart.get_config()
  base.data.update(source="text(documents='line')", tokenizer="byte_bpe")
  config = _ulmfit(args, data, folder, seed, rate_decay=2.6, unfreeze_every=max(args.steps // 20, 1))
  config.train.init_from = pretrained(args, data, text, "ulmfit", base)
  return config


ROWS = {
  "bilstm": bilstm, "random_elmo": random_elmo, "elmo": elmo, "random_taglm": random_taglm, "taglm": taglm,
  "random_ulmfit": random_ulmfit, "ulmfit": ulmfit,
}  # fmt: skip
