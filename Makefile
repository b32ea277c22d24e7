# make demo   sets everything up and streams a video
# make test   sets everything up and passes the tests
# make test-h200   compiles for an H200 without one, and looks at the result

VENV ?= .venv
PYTEST_ARGS ?= -n 2
CONFIG ?= configs/demo.py
export PROMPT

bin := $(VENV)/bin
pip := $(bin)/python -m pip --disable-pip-version-check install --quiet

H200 ?= .venv-h200

.PHONY: demo test test-h200 lint format clean

demo: $(VENV)/.demo
	@$(bin)/python -m jaxvid.main --config=$(CONFIG) \
	  $${PROMPT:+"--config.prompt=$$PROMPT"}

test: $(VENV)/.dev
	$(bin)/python -m pytest -q $(PYTEST_ARGS)

# In an environment of its own: the CUDA wheels are there for their compilers.
# tests/conftest.py stays out, since it turns optimisations off.
test-h200: $(H200)/.h200
	$(H200)/bin/python -m pytest -q -p no:randomly --confcutdir=tests/h200 \
	  $(H200_ARGS) tests/h200

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

$(H200)/bin/python:
	@python=$$(sh launch/find_python.sh) && \
	  echo "jaxvid: setting up $(H200) with $$python" && \
	  "$$python" -m venv $(H200)

$(H200)/.h200: $(H200)/bin/python pyproject.toml constraints.txt
	@echo "jaxvid: installing jax's CUDA compilers (once; 5 GB)"
	@$(H200)/bin/python -m pip --disable-pip-version-check install --quiet \
	  'jax[cuda13]==0.11.2' --editable . pytest pytest-xdist \
	  --constraint constraints.txt
	@touch $@
