SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := ablation_report
.PHONY: help ablation_report test lint .venv .venv-vllm

PYTHON ?= python3
CORES ?= all
QUOTED = '$(subst ','\'',$(1))'
IN_VENV := export PATH="$(CURDIR)/.venv/bin:$$PATH";

# Targets with a description after `##` are what `make help` lists. Each builds .venv first when it is missing or out of date.
help:  ## this list
	@sed -nE 's/^([a-z_.-]+):.*## (.*)/  make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "%-24s %s\n", $$1, $$2 }'
	@echo "  Options of ablation_report: STUDY=<name or file>  SCALE=tiny  ENGINE=vllm  CORES=<number>"

.venv:  ## the Python environment
	@command -v $(PYTHON) >/dev/null || { echo "rlassay needs Python 3.11 or newer, and $(PYTHON) was not found" >&2; exit 1; }
	@$(PYTHON) workflow/build_venv.py

.venv-vllm: .venv  ## a second environment with vLLM and torchvision; `make test` then runs tests/engines too
	@.venv/bin/python workflow/build_vllm.py

ablation_report: $(if $(filter vllm,$(ENGINE)),.venv-vllm,.venv)  ## run a study, from data to report (the default target)
	@$(IN_VENV) $(if $(filter vllm,$(ENGINE)),.venv-vllm/bin/python -m )snakemake --cores $(CORES) ablation_report $(if $(STUDY)$(SCALE)$(ENGINE),--config $(if $(STUDY),$(call QUOTED,study=$(STUDY))) $(if $(SCALE),$(call QUOTED,scale=$(SCALE))) $(if $(ENGINE),$(call QUOTED,engine=$(ENGINE))))

lint: .venv  ## style, types, import contracts
	@$(IN_VENV) ruff check .
	@$(IN_VENV) ruff format --check .
	@$(IN_VENV) pyright
	@$(IN_VENV) lint-imports
	@$(IN_VENV) snakefmt --check Snakefile workflow/rules
	@$(IN_VENV) snakemake --lint

# One thread per worker: jobs that share cores with more threads than cores run many times slower. Three workers on two
# cores, since a third of their time they wait: for a queue, a time limit, or a process that they have killed. Lint runs
# beside them, and prints when they have ended, so that its errors are not lost between theirs. Python caches bytecode,
# even if the environment forbids it: otherwise each worker would compile all tests, and each job the package.
test: export PYTHONDONTWRITEBYTECODE =
test: .venv  ## lint and every test, then those of tests/engines; each part runs whether the others passed or not
	@failed=0; printed=$$(mktemp); make --no-print-directory lint > "$$printed" 2>&1 & lint=$$!; \
	trap 'kill $$lint 2> /dev/null || true; rm -f "$$printed"' EXIT; \
	($(IN_VENV) OMP_NUM_THREADS=1 pytest -n 3 --dist loadfile --no-loadscope-reorder) || failed=1; \
	wait $$lint || failed=1; cat "$$printed"; \
	if [ -d .venv-vllm ]; then .venv/bin/python workflow/build_vllm.py && OMP_NUM_THREADS=1 .venv-vllm/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder tests/engines || failed=1; \
	else echo "skipped: tests/engines, which need vLLM and torchvision (make .venv-vllm)"; fi; exit $$failed
