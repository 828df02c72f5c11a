# make demo: generate SynthAG, train VIF on the CPU, print the table of protocols.  make test: the tests.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export FASTREID_DATASETS ?= datasets

.PHONY: demo test lint setup clean
demo: setup
	$(BIN)/vif synth --out datasets/SynthAG --ids 600 --seed 0
	$(BIN)/python train_net.py --config-file configs/SynthAG/vif.yml

test: setup
	$(BIN)/python -m pytest

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
	rm -rf $(VENV) logs build .pytest_cache .mypy_cache .ruff_cache .hypothesis
