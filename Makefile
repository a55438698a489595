# make ablation_report [STUDY=digits] [SCALE=tiny] [CORES=all]   run a study, from data to report
# make test                                                      lint, then every test
# make lint                                                      style, types, who may import whom
# Each of them first builds .venv when it is missing or out of date; `make .venv` does only that.
# make .venv-vllm                                                what tests/engines needs; from then on `make test` runs them too

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := ablation_report
.PHONY: ablation_report test lint .venv .venv-vllm

PYTHON ?= python3
CORES ?= all
IN_VENV := export PATH="$(CURDIR)/.venv/bin:$$PATH";

.venv:
	@command -v $(PYTHON) >/dev/null || { echo "rlassay needs Python 3.11 or newer, and $(PYTHON) was not found" >&2; exit 1; }
	@$(PYTHON) workflow/build_venv.py

.venv-vllm: .venv
	@.venv/bin/python workflow/build_vllm.py

ablation_report: .venv
	@$(IN_VENV) snakemake --cores $(CORES) ablation_report $(if $(STUDY)$(SCALE),--config $(if $(STUDY),study=$(STUDY)) $(if $(SCALE),scale=$(SCALE)))

lint: .venv
	@$(IN_VENV) ruff check .
	@$(IN_VENV) ruff format --check .
	@$(IN_VENV) pyright
	@$(IN_VENV) lint-imports
	@$(IN_VENV) snakefmt --check Snakefile workflow/rules
	@$(IN_VENV) snakemake --lint

# Two workers, one thread each: jobs that share cores with more threads than cores run many times slower.
test: lint
	@$(IN_VENV) OMP_NUM_THREADS=1 pytest -n 2 --dist loadfile --no-loadscope-reorder
	@if [ -d .venv-vllm ]; then .venv/bin/python workflow/build_vllm.py && OMP_NUM_THREADS=1 .venv-vllm/bin/python -m pytest -n 2 --dist loadfile tests/engines; \
	else echo "skipped: tests/engines, which need vLLM and torchvision (make .venv-vllm)"; fi
