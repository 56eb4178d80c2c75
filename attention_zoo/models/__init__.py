"""Every model of the zoo: name in `config.model.name` -> module that holds `Config` and the Flax module."""

from attention_zoo.models import transformer

MODELS = {"transformer": transformer}
