# make reproduce   from nothing to the report        make test   the tests
# make env         the environment alone             make shell  a shell inside it
# make paper       reports/paper.pdf of the last run's paper.tex, where there is a TeX
# make bench       speed against the published packages and the least cost; docs/performance.md
# make bench-gpu   the same for one CUDA GPU
SHELL := /bin/bash
PYTHON ?= python3
CORES ?= all
STUDY ?=
BIN := $(CURDIR)/.venv/bin
RUN := export PATH="$(BIN):$$PATH" VIRTUAL_ENV="$(CURDIR)/.venv";
CHECKED := src pipeline tests benchmarks
# The environment is the lock's and nothing else's; compiled modules save seconds per job.
unexport PYTHONDONTWRITEBYTECODE PYTHONPATH PYTHONHOME

.PHONY: env reproduce paper test check readme bench bench-gpu performance shell lock format clean
.DEFAULT_GOAL := reproduce

env: .venv/.ready

.venv/.ready: requirements.lock bootstrap.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else "Python 3.11 to 3.13 is needed, found %d.%d; name one: make env PYTHON=python3.12" % v)'
	@test -x "$(BIN)/python" || $(PYTHON) -m venv .venv
	@"$(BIN)/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r bootstrap.lock
	@"$(BIN)/uv" pip sync --quiet --python "$(BIN)/python" --require-hashes requirements.lock
	@"$(BIN)/uv" pip install --quiet --python "$(BIN)/python" --no-deps --no-build-isolation --editable .
	@touch $@
	@echo "environment: .venv is ready (source .venv/bin/activate, or make shell)"

reproduce: env
	@$(RUN) $(if $(STUDY),advtrain select $(STUDY) &&) \
	  if advtrain status >/dev/null 2>&1; then echo "nothing to do"; else snakemake --cores $(CORES); fi
	@$(RUN) if git rev-parse --git-dir >/dev/null 2>&1; then dvc repro --quiet && echo "recorded by DVC: dvc.lock"; \
	  else echo "not a git checkout: DVC recorded nothing"; fi
	@$(RUN) python -m pipeline.paper || echo "paper: reports/paper.tex is there, paper.pdf is not"
	@echo "report: reports/index.html"

paper: env
	@$(RUN) python -m pipeline.paper

test: env
	@$(RUN) pytest -n 3 --dist worksteal

check: env
	@$(RUN) ruff check $(CHECKED) && ruff format --check $(CHECKED)
	@$(RUN) mypy
	@$(RUN) snakefmt --check Snakefile pipeline/rules
	@$(RUN) snakemake --lint

readme: env
	@$(RUN) python benchmarks/readme.py

# Each section keeps its own record in reports/bench as soon as it is done.
BENCH = OMP_NUM_THREADS=1 python -W ignore benchmarks

bench: env
	@$(RUN) $(BENCH)/attacks.py && $(BENCH)/training.py && $(BENCH)/overhead.py && $(BENCH)/scaling.py \
	  && $(BENCH)/report.py
	@$(RUN) python benchmarks/performance.py

bench-gpu: env
	@$(RUN) $(BENCH)/gpu.py $(if $(DATA),--data $(DATA)) && $(BENCH)/training.py --device cuda \
	  && $(BENCH)/scaling.py --device cuda
	@$(RUN) python benchmarks/performance.py

performance: env
	@$(RUN) python benchmarks/performance.py

shell: env
	@$(RUN) exec bash --rcfile <(cat ~/.bashrc 2>/dev/null; echo 'source "$(BIN)/activate"') -i

lock: env
	@$(RUN) uv pip compile pyproject.toml --extra dev --universal --generate-hashes --no-emit-index-url \
	  --python-version 3.11 --custom-compile-command "make lock" --quiet --upgrade -o requirements.lock
	@echo uv | "$(BIN)/uv" pip compile - --universal --generate-hashes --no-emit-index-url \
	  --python-version 3.11 --custom-compile-command "make lock" --quiet --upgrade -o bootstrap.lock

format: env
	@$(RUN) ruff check --fix $(CHECKED); ruff format $(CHECKED); snakefmt Snakefile pipeline/rules

clean:
	rm -rf .pipeline .snakemake logs
