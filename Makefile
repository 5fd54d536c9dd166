# Every target installs what it needs first; an installation that is up to date is left alone.

PYTHON ?= python3.11
BIN := .venv/bin
INSTALLED := .venv/.installed
EMBEDDED := llmrec/data/embedded-requirements.txt

# The third log needs its published file, which this variable names.
RETAIL := $(if $(LLMREC_ONLINE_RETAIL),online-retail)
RETAIL_SPLITS := $(if $(RETAIL),retail-repeat retail-explore)
LOGS := ml-100k completejourney $(RETAIL)

BENCHMARKS := speed.data speed.scoring speed.batch_equality speed.first_run speed.forecasters speed.ranking speed.batch \
              finetuning.parse_rate explanations.edit_laws explanations.truthfulness explanations.causes \
              safety.drift

.DEFAULT_GOAL := help
.PHONY: help demo test slow hostile lint docs notebooks finetune-small bench bench-ranking bench-engines requirements audit clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# The stamp is written last, so an installation that failed half-way is done again. All but torch is
# verified by hash. Which build of torch comes, and what else it needs, depends on where it is looked
# for: its version alone is pinned.
$(INSTALLED): pyproject.toml .ci/requirements.txt $(EMBEDDED)
	rm -f $@
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --no-deps --require-hashes -r .ci/requirements.txt
	$(BIN)/python -m pip install torch==2.13.0 -c .ci/constraints.txt
	$(BIN)/python -m pip install --no-deps --no-build-isolation -e .
	$(BIN)/python -m pip install --no-deps --require-hashes -r $(EMBEDDED)
	touch $@

demo: $(INSTALLED)  ## histories in; forecast, ranking and reasons out, by a real LLM
	$(BIN)/llmrec demo

test: $(INSTALLED)  ## the fast tests
	$(BIN)/python -m pytest

slow: $(INSTALLED)  ## the tests on real weights and large logs
	$(BIN)/python -m pytest -m slow

hostile: $(INSTALLED)  ## the guarantees under attack: faults, kills, mutations; within an hour
	$(BIN)/python -m pytest -m hostile tests/hostile

lint: $(INSTALLED)  ## style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(INSTALLED)  ## build the documentation site into docs/_build
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build

notebooks: $(INSTALLED)  ## run every notebook whole and keep its output
	$(BIN)/jupyter-execute --inplace notebooks/*.ipynb

finetune-small: $(INSTALLED)  ## fine-tune the embedded model on 150 people of MovieLens, in minutes
	$(BIN)/python finetune/make_dataset.py --data ml-100k --people 150 --out examples/small
	$(BIN)/python finetune/lora.py finetune/configs/small.yaml

PAGES = $(BIN)/python -m benchmarks.harness.tables && $(BIN)/python -m benchmarks.harness.front_page

bench: $(INSTALLED)  ## run every benchmark and rewrite benchmarks/results
	set -e; for name in $(BENCHMARKS); do echo "== $$name"; $(BIN)/python -m benchmarks.$$name; done
	$(BIN)/python -m benchmarks.finetuning.parse_rate --data completejourney
	$(BIN)/python -m benchmarks.forecasting.quality --data completejourney
	$(BIN)/python -m benchmarks.forecasting.quality --data ml-100k
	for log in synthetic $(RETAIL); do $(BIN)/python -m benchmarks.forecasting.quality --data $$log --model '' || exit 1; done
	$(BIN)/python -m benchmarks.forecasting.holidays
	$(BIN)/python -m benchmarks.forecasting.platforms
	$(BIN)/python -m benchmarks.forecasting.horizon
	$(BIN)/python -m benchmarks.forecasting.pretrained
	for log in $(LOGS); do $(BIN)/python -m benchmarks.explanations.came_true --data $$log || exit 1; done
	$(BIN)/python -m benchmarks.finetuning.quality --data ml-100k --engine llmrec/engines/ml-100k
	$(BIN)/python -m benchmarks.forecasting.next_item
	$(PAGES)

# RecTools excludes our numpy and pandas, so it gets an environment of its own.
RECTOOLS := .venv-rectools/.installed

$(RECTOOLS):
	rm -f $@
	$(PYTHON) -m venv .venv-rectools
	.venv-rectools/bin/python -m pip install --no-deps --require-hashes -r .ci/rectools-requirements.txt
	.venv-rectools/bin/python -m pip install torch==2.13.0 -c .ci/rectools-constraints.txt
	touch $@

COMPARE := $(BIN)/python -m benchmarks.ranking.compare
MOVIES := runs/ml-next-period
GROCERIES := --adapter llmrec/engines/completejourney/adapter

bench-ranking: $(INSTALLED) $(RECTOOLS)  ## rankings against baselines, and of new items: hours, and 17 GB
	$(BIN)/python -m benchmarks.ranking.splits --out $(MOVIES)
	$(BIN)/python -m benchmarks.ranking.adapter_examples --data $(MOVIES) --out examples/ml-next-period
	$(BIN)/python finetune/lora.py finetune/configs/smollm2-135m-ml-100k.yaml --data $(MOVIES) \
	    --examples examples/ml-next-period --out $(MOVIES)-adapter --generation.epochs 0 --label_renaming 0 --epochs 7
	$(COMPARE) --split next-period --adapter $(MOVIES)-adapter/adapter
	$(COMPARE) --split leave-one-out --adapter $(MOVIES)-adapter/adapter
	$(COMPARE) --split global-time
	$(COMPARE) --split repeat-allowed $(GROCERIES)
	$(COMPARE) --split explore-only $(GROCERIES)
	for split in $(RETAIL_SPLITS); do $(COMPARE) --split $$split || exit 1; done
	for log in $(LOGS); do $(BIN)/python -m benchmarks.ranking.launches --data $$log || exit 1; done
	for log in $(LOGS); do $(BIN)/python -m benchmarks.ranking.young_shop --data $$log || exit 1; done
	$(PAGES)

# Baselines compared with in pairs are fitted again, with the settings that the results have.
AGAIN := --known-settings --keep-rows --baselines
FORECAST := $(BIN)/python -m benchmarks.forecasting.engines
WHOLE := $(BIN)/python -m benchmarks.engines.whole

bench-engines: $(INSTALLED)  ## engines at three efforts: lists, forecasts, members, cost; hours
	$(WHOLE) --data many-items --efforts quick standard
	for log in $(LOGS); do $(WHOLE) --data $$log || exit 1; done
	for split in next-period leave-one-out global-time; do \
	    $(COMPARE) --split $$split $(AGAIN) "GRU4Rec,Two-stage trees,Two-stage trees with GRU4Rec" || exit 1; done
	for split in repeat-allowed explore-only $(RETAIL_SPLITS); do \
	    $(COMPARE) --split $$split $(AGAIN) "Personal frequency,GRU4Rec,Two-stage trees" || exit 1; done
	for log in $(LOGS); do $(FORECAST) --data $$log || exit 1; done
	for log in $(LOGS); do $(BIN)/python -m benchmarks.engines.members --data $$log || exit 1; done
	$(PAGES)

# Tools of maintainers, in an environment of their own: nothing of ours runs with them.
TOOLS := .venv-tools/.installed
LOCK := .venv-tools/bin/uv pip compile -q --generate-hashes --no-annotate --python-version 3.11.5 \
        --custom-compile-command 'make requirements'

$(TOOLS):
	rm -f $@
	$(PYTHON) -m venv .venv-tools
	.venv-tools/bin/python -m pip install uv==0.13.9 pip-audit==2.10.1
	touch $@

requirements: $(TOOLS)  ## write the requirement files with hashes from .ci/constraints.txt
	for kind in '' rectools-; do grep -v '^torch==' .ci/$${kind}constraints.txt | \
	    $(LOCK) --no-deps - -o .ci/$${kind}requirements.txt || exit 1; done
	$(LOCK) pyproject.toml -c .ci/constraints.txt --extra serve --extra trees \
	    -o .ci/serve-requirements.txt
	$(LOCK) pyproject.toml -c .ci/constraints.txt --extra serve --extra trees --extra llm \
	    -o .ci/serve-llm-requirements.txt

audit: $(TOOLS)  ## ask PyPI for known vulnerabilities of every pinned package
	for file in $(wildcard .ci/*requirements.txt) $(wildcard llmrec/data/*requirements.txt); do \
	    echo "== $$file"; .venv-tools/bin/pip-audit --strict --disable-pip --require-hashes -r $$file \
	    || exit 1; done

clean:  ## remove the environment and what tools left behind
	rm -rf .venv .venv-rectools .venv-tools .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist docs/_build docs/api
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
