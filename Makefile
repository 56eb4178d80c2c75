# make demo   sets up, trains the quickstart, averages, translates, scores, writes runs/demo/report.html
# make test   the whole test suite          make lint   ruff          make pretrained   the models in attention_zoo/pretrained/
PYTHON ?= python3
VENV = .venv
BIN = $(VENV)/bin
WORKDIR ?= runs/demo
RUN = PYTHONPATH=. $(BIN)/python -m
# malloc uses big pages and keeps what it has: without, a CPU step begins by having a gigabyte zeroed anew by the kernel.
export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1:glibc.malloc.arena_max=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=68719476736
# One simulated device a core (a power of two, to share batches evenly) trains faster than one device with all cores.
DEMO_XLA_FLAGS = --xla_force_host_platform_device_count=$(shell n=$$(nproc 2>/dev/null || echo 1); d=1; \
	while [ $$((d * 2)) -le $$n ] && [ $$d -lt 8 ]; do d=$$((d * 2)); done; echo $$d)

.PHONY: demo pretrained phrasebook-en-de phrasebook-en-fr phrasebook-lm test lint wheel clean

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

demo: export XLA_FLAGS ?= $(DEMO_XLA_FLAGS)
demo: $(VENV)/installed
	$(RUN) attention_zoo.train --config=configs/quickstart.py --workdir=$(WORKDIR)
	$(RUN) attention_zoo.average --workdir=$(WORKDIR) --last=5
	$(RUN) attention_zoo.evaluate --workdir=$(WORKDIR) --checkpoint=average --split=test --report
	@echo; echo "The concert takes place in Moscow in May 2033." | $(RUN) attention_zoo.translate --workdir=$(WORKDIR)

# The models that come with the package: all of them, or one by its name (make phrasebook-lm).
PRETRAINED = phrasebook-en-de phrasebook-en-fr phrasebook-lm
pretrained: $(PRETRAINED)
phrasebook-en-de: CONFIG = quickstart
phrasebook-en-fr: CONFIG = quickstart --config.data.languages="('en', 'fr')"
phrasebook-lm: CONFIG = language/quickstart
$(PRETRAINED): export XLA_FLAGS ?= $(DEMO_XLA_FLAGS)
$(PRETRAINED): $(VENV)/installed
	$(RUN) attention_zoo.train --config=$(CONFIG) --workdir=runs/pretrained/$@
	$(RUN) attention_zoo.evaluate --workdir=runs/pretrained/$@ --checkpoint=latest --split=test
	rm -rf runs/pretrained/$@.int8
	$(RUN) attention_zoo.export --workdir=runs/pretrained/$@ --checkpoint=latest --dtype=int8 --to=runs/pretrained/$@.int8
	rm -rf attention_zoo/pretrained/$@ && mv runs/pretrained/$@.int8 attention_zoo/pretrained/$@

test: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n 2 --dist worksteal

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .

wheel: $(VENV)/installed-dev
	$(BIN)/python -m pip wheel --no-deps --wheel-dir dist .

clean:
	rm -rf $(VENV) build dist *.egg-info
