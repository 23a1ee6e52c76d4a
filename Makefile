# Every target that runs something sets up first, once: a virtual environment, then the pinned install.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed
ARGS ?=

.PHONY: demo demo-aloha test test-all check bench clean

demo: $(READY)
	$(BIN)/lapwing demo $(ARGS)

demo-aloha: $(READY)
	$(BIN)/lapwing demo --world aloha $(ARGS)

test: $(READY)
	$(BIN)/python -m pytest -rs $(ARGS)

test-all: $(READY)
	$(BIN)/python -m pytest -rs -m "" $(ARGS)

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(READY)
	$(BIN)/lapwing bench data
	$(BIN)/lapwing bench lapo $(ARGS)
	$(BIN)/lapwing bench act
	$(BIN)/lapwing bench sac
	$(BIN)/lapwing bench state

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis

# The stamp is written last, so an interrupted install starts over. A changed pyproject or pin installs again.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "lapwing needs Python 3.11 or newer; '$(PYTHON)' is older or missing." >&2; \
		echo "Install one and say which: make $(MAKECMDGOALS) PYTHON=python3.11" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { \
		rm -rf $(VENV); \
		echo "cannot make a virtual environment; on Debian or Ubuntu: apt install python3-venv" >&2; exit 1; }
	@echo "setting up $(VENV), once: about 5 GB to download, most of it PyTorch with CUDA (for the CPU build see README.md)"
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[dev,sim,gym,lerobot,ros,ray]'
	@touch $@
