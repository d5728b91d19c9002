# make run | test | fuzz | walk | latency | faults | lab | app | docs | bench        with another Python: make run PYTHON=python3.12
PYTHON ?= python3
BIN := .venv/bin

.PHONY: run test checked compiled fuzz walk latency faults lab app docs bench clean

run: .venv/notebook.stamp
	@echo "Integrating the sample frames. The first time, code is compiled for this computer and the notebooks get ready ..."
	$(BIN)/stacklib run sample_data/M101/4_Registered
	@$(BIN)/python -P -m stacklib.commands.ready

lab: .venv/notebook.stamp
	$(BIN)/stacklib lab

app: .venv/app.stamp
	$(BIN)/python -P -m stacklib.notebook.app

docs: .venv/docs.stamp
	$(BIN)/python docs/build.py

# Compiling takes a core some minutes on a fresh machine, the checks take another.
test: .venv/test.stamp
	$(MAKE) --no-print-directory -j 2 checked compiled
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

checked: .venv/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m numpydoc lint $(shell find stacklib -name '*.py')

compiled: .venv/test.stamp
	@echo "Compiling for this processor, if that was not done before ..."
	$(BIN)/python tests/warm_up.py

# Other inputs each time; it prints their seed. Files that failed are kept in fuzz_failures.
fuzz: .venv/test.stamp
	$(BIN)/python tests/fuzz/fuzz.py --count 20000 --keep fuzz_failures

# About half an hour, on a machine that does nothing else.
bench: .venv/bench.stamp
	$(BIN)/python benchmarks/run.py
	$(BIN)/python benchmarks/per_sample.py
	$(BIN)/python benchmarks/compressed.py
	$(BIN)/python benchmarks/growing.py

# Real frames of two targets through the notebooks in a browser, about five minutes; where the frames are.
walk: .venv/test.stamp
	WALK=1 $(BIN)/python -m pytest tests/browser/test_walk.py

# How quickly panels answer in a browser, also on sixteen frames of 26 megapixels: medians beside what is wanted. About
# ten minutes, on a machine that does nothing else, with 4 GB for frames.
latency: .venv/test.stamp
	LARGE=16 $(BIN)/python -m pytest tests/browser -m latency

# Kills runs, saves and batches at many random moments, which takes an hour. Linux and macOS only.
faults: .venv/test.stamp
	PYTHONPATH=tests $(BIN)/python tests/fault_trials.py

clean:
	rm -rf .venv

# Each stamp remembers which extras are installed; they are installed anew when pyproject.toml changes.
.venv/notebook.stamp: EXTRAS = notebook
.venv/app.stamp: EXTRAS = notebook,app
.venv/docs.stamp: EXTRAS = notebook,docs,cluster
.venv/test.stamp: EXTRAS = notebook,test,docs,app,cluster
.venv/bench.stamp: EXTRAS = notebook,test,bench
.venv/%.stamp: pyproject.toml | $(BIN)/python
	@echo "Installing stacklib, JupyterLab, numba, astropy and others into .venv: the first time about 1 GB,"
	@echo "one to five minutes, without further messages ..."
	@$(BIN)/python -m pip install --quiet --editable ".[$(EXTRAS)]"
	@touch $@

$(BIN)/python:
	@echo "Making an environment of its own in .venv: some seconds ..."
	@$(PYTHON) -m venv .venv
