# make reproduce   run every notebook (profile quick) to figures, metrics and a report page
# make test        run every test
# make fuzz        10 000 damaged and odd inputs: each is read, or refused in one line
# make kill        trainings, renderings, transfers and runs killed and started again: nothing is lost
# make lab         open JupyterLab in the environment
# make wheelhouse  wheels of what PYTHON lacks elsewhere, for a machine without network (README)
# make lint        ruff over the library, the tests and the notebooks
#
# Each builds .venv on first use. PROFILE=smoke|quick|long|paper and CORPUS=auto|bands|gtzan choose the run.

PYTHON ?= python3
PROFILE ?= quick
CORPUS ?= auto
VENV := .venv
READY := $(VENV)/installed

.PHONY: reproduce test fuzz kill lab wheelhouse lint clean

reproduce: $(READY)
	$(VENV)/bin/audiostyle reproduce --profile $(PROFILE) --corpus $(CORPUS)

test: $(READY)
	$(VENV)/bin/python -m pytest

fuzz: $(READY)
	$(VENV)/bin/python tests/campaigns/fuzz.py

kill: $(READY)
	$(VENV)/bin/python tests/campaigns/kill.py

lab: $(READY)
	$(VENV)/bin/jupyter lab notebooks

# HAVE is what `python -m pip list --format=freeze` says on that machine; PYTHON has to be of its version
wheelhouse:
	@test -f "$(HAVE)" || { echo "make wheelhouse HAVE=FILE: FILE is what the other machine has, by \
	  python -m pip list --format=freeze"; exit 2; }
	mkdir -p wheelhouse
	awk -F '[= @]' '{ name = tolower($$1); gsub(/[_.]/, "-", name) } \
	  NR == FNR { have[name]; next } !/^#/ && !(name in have)' $(HAVE) constraints.txt > wheelhouse/lacking.txt
	$(PYTHON) -m pip wheel --no-deps --wheel-dir wheelhouse --requirement wheelhouse/lacking.txt

lint: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else \
	  "Python 3.11 to 3.13 is needed, $(PYTHON) is %d.%d: try make PYTHON=python3.12" % v)'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --constraint constraints.txt --editable ".[test]"
	touch $(READY)

clean:
	rm -rf $(VENV) .snakemake .pytest_cache .ruff_cache
