# make demo   sets everything up and streams a video
# make test   sets everything up and passes the tests

VENV ?= .venv
PYTEST_ARGS ?= -n 2
CONFIG ?= configs/demo.py
export PROMPT

bin := $(VENV)/bin
pip := $(bin)/python -m pip --disable-pip-version-check install --quiet

.PHONY: demo test lint format clean

demo: $(VENV)/.demo
	@$(bin)/python -m jaxvid.main --config=$(CONFIG) \
	  $${PROMPT:+"--config.prompt=$$PROMPT"}

test: $(VENV)/.dev
	$(bin)/python -m pytest -q $(PYTEST_ARGS)

lint: $(VENV)/.dev
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/pyright

format: $(VENV)/.dev
	$(bin)/ruff format .
	$(bin)/ruff check --fix .

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache

# The stamps record what is installed, so that a second run starts at once.
$(bin)/python:
	@python=$$(sh launch/find_python.sh) && \
	  echo "jaxvid: setting up $(VENV) with $$python" && \
	  "$$python" -m venv $(VENV)

$(VENV)/.demo: $(bin)/python pyproject.toml constraints.txt
	@echo "jaxvid: installing (once; a minute or two)"
	@$(pip) --editable . --constraint constraints.txt
	@touch $@

$(VENV)/.dev: $(bin)/python pyproject.toml constraints.txt
	@echo "jaxvid: installing (once; a minute or two)"
	@$(pip) --editable '.[dev]' --constraint constraints.txt
	@touch $@ $(VENV)/.demo
