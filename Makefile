# make demo: generate SynthAG, train VIF on the CPU, print the table of protocols.  make test: the tests.
# make test-legacy: most of the tests on fastreid 1.4.0 as it pins itself, with Python 3.9 and torch 1.13.1.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTHON_LEGACY ?= python3.9
LEGACY := .venv-legacy
MILVUS := .venv-milvus
# Left out there: what runs the installed command, and a ViT-B/16 that takes minutes. Tests say what else they need.
# And the fault suite: torch 1.13 aborts the process when a disk fills while it saves, and its scipy crashes on
# malformed .mat files.
LEGACY_LEFT_OUT := --ignore=tests/experiments --ignore=tests/faults --ignore=tests/test_readme.py \
	--deselect=tests/test_train.py::test_vit_b16_runs_the_cargo_recipe
# PYTHON_LEGACY if it runs, else a Python 3.9 of pyenv's, whose own python3.9 may refuse to; empty where there is none
find_legacy = $(shell for p in "$(PYTHON_LEGACY)" "$$(pyenv root 2>/dev/null)"/versions/3.9.*/bin/python3.9; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 9))' 2>/dev/null && echo "$$p" && break; done)
export FASTREID_DATASETS ?= datasets

.PHONY: demo test test-faults test-milvus test-legacy has-legacy lint setup clean
demo: setup
	$(BIN)/vif synth --out datasets/SynthAG --ids 600 --seed 0
	$(BIN)/python train_net.py --config-file configs/SynthAG/vif.yml

test: setup
	$(BIN)/python -m pytest

# Kills, torn files, full disks: docs/reliability.md. `make test` runs them too.
test-faults: setup
	$(BIN)/python -m pytest tests/faults

# Galleries on Milvus Lite, which brings faiss-cpu: an environment of their own, without torch.
test-milvus: $(MILVUS)/installed
	$(MILVUS)/bin/python -m pytest $(addprefix tests/retrieval/test_,contract.py milvus.py opening.py served.py page.py)

$(MILVUS)/installed: requirements-milvus.txt
	test -x $(MILVUS)/bin/python || $(PYTHON) -m venv $(MILVUS)
	$(MILVUS)/bin/python -m pip install -r requirements-milvus.txt
	touch $@

test-legacy: $(LEGACY)/installed
	$(LEGACY)/bin/python -m pytest $(LEGACY_LEFT_OUT)

has-legacy:
	@test -n "$(find_legacy)" || { echo "There is no Python 3.9 here: install one, or name it, as in" \
		"make test-legacy PYTHON_LEGACY=/path/to/python3.9"; exit 1; }

$(LEGACY)/installed: requirements-legacy.txt
	@$(MAKE) has-legacy
	test -x $(LEGACY)/bin/python || "$(find_legacy)" -m venv $(LEGACY)
	$(LEGACY)/bin/python -m pip install -r requirements-legacy.txt
	touch $@

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

setup: $(VENV)/installed

# opencv-python needs libGL; where the system has none, the same library without windows takes its place.
$(VENV)/installed: requirements.txt requirements-dev.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -r requirements.txt -r requirements-dev.txt
	$(BIN)/python -m pip install --no-deps fastreid==1.4.0
	$(BIN)/python -m pip install --no-deps -e .
	$(BIN)/python -c "import cv2" || { $(BIN)/python -m pip uninstall -y opencv-python \
		&& $(BIN)/python -m pip install opencv-python-headless; }
	touch $@

clean:
	rm -rf $(VENV) $(LEGACY) $(MILVUS) logs build .pytest_cache .mypy_cache .ruff_cache .hypothesis
