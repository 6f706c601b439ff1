# The README's commands. Each makes its own environment if there is none; a second run reuses it.
.PHONY: demo demo-video test test-extras test-classic test-onedl endurance lint docs pages records \
	lock licences audit wheel wheel-check cuda-check clean

PYTHON ?= $(shell command -v python3.11 || command -v python3)
# One worker a core, one thread a worker; a file stays whole, since its fixtures are costly.
PYTEST := -m pytest -n auto --dist loadfile
VENV := .venv
CLASSIC := .venv-classic
WITH_EXTRAS := .venv-extras
ONEDL := .venv-onedl
WHEELS := .venv-wheel
# What meets mmengine, mmcv, mmdet or mmpretrain. The rest needs mmaction2, which that stack lacks, or
# torch alone, which is that of `make test`.
ONEDL_TESTS := $(addprefix tests/,adapters analysis compat configs datasets env fit hooks metrics \
	models runner tools test_main.py test_package.py)
# Every extra; each is needed by some test.
EXTRAS := app browser deploy docs hosts serve video

demo: $(VENV)/.installed
	$(VENV)/bin/python tools/demo.py

# Made for under 20 minutes the first time on two idle cores; the second takes under one.
demo-video: $(VENV)/.video
	$(VENV)/bin/python tools/demo_video.py

test: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(VENV)/bin/python $(PYTEST)

# The tests marked `extras`, with the optional packages that they need.
test-extras: $(WITH_EXTRAS)/.installed
	OMP_NUM_THREADS=1 MMVITACCEL_EXTRAS="$(EXTRAS)" $(WITH_EXTRAS)/bin/python $(PYTEST) -m extras

# torch 2.1.2 with mmcv built from source: needs a C++ compiler and about a quarter of an hour.
test-classic: $(CLASSIC)/.installed
	OMP_NUM_THREADS=1 $(CLASSIC)/bin/python $(PYTEST)

# The parts for mmdet and mmpretrain on the forks named onedl-*; what needs mmaction2 is skipped.
test-onedl: $(ONEDL)/.installed
	OMP_NUM_THREADS=1 $(ONEDL)/bin/python $(PYTEST) -rs $(ONEDL_TESTS)

# Hours on a small machine; the tests have a small form of each.
endurance: $(VENV)/.installed $(WITH_EXTRAS)/.installed
	OMP_NUM_THREADS=1 $(VENV)/bin/python benchmarks/endurance/many_streams.py
	OMP_NUM_THREADS=1 $(VENV)/bin/python benchmarks/endurance/long_video.py
	OMP_NUM_THREADS=1 $(VENV)/bin/python benchmarks/endurance/long_video.py --model base \
		--frames 1000 --every 10 --dtypes float32
	OMP_NUM_THREADS=1 $(VENV)/bin/python benchmarks/endurance/fuzz.py --count 10000 --seed 0
	$(WITH_EXTRAS)/bin/python benchmarks/endurance/serving_load.py
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest --hypothesis-profile=thorough \
		tests/adapters/eventful/test_properties.py tests/core/tome/test_properties.py

# On a machine with a CUDA GPU; in .venv if there is one, else in whatever PYTHON names.
cuda-check:
	$(or $(wildcard $(VENV)/bin/python),$(PYTHON)) benchmarks/cuda_check.py

lint: $(VENV)/.installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/python benchmarks/pages.py --check

# The documentation site, docs/_build/html; a warning is an error, and a dead link a warning.
docs: $(WITH_EXTRAS)/.installed
	$(WITH_EXTRAS)/bin/sphinx-build -W --keep-going -n -q -c docs -d docs/_build/doctrees . \
		docs/_build/html

# The pages' tables of measured figures, from benchmarks/results.
pages: $(VENV)/.installed
	$(VENV)/bin/python benchmarks/pages.py

# Those results, on a machine with nothing else to do: hours. RECORDS="tome clip" makes only these,
# RECORDS=--missing those that are not there.
records: $(VENV)/.benchmarks
	$(VENV)/bin/python benchmarks/run_all.py $(RECORDS)

# The default stack with hashes, for the platform that this runs on: requirements/lock. Run it again
# after a pin has changed, or to take newer versions of what is not pinned.
lock:
	$(PYTHON) requirements/lock.py

# docs/licences.md, after a pin has changed.
licences:
	$(PYTHON) requirements/licences.py

# Known vulnerabilities of the locked versions; exit status 2 where they could not be looked up.
audit:
	$(PYTHON) requirements/audit.py

# Wheels with kernels made ahead, into dist/. That for another machine needs a cross compiler.
wheel: $(WHEELS)/.installed
	$(WHEELS)/bin/python release/build_wheels.py

# What the wheels' names promise, and that the kernels of this machine's wheel run without a compiler.
wheel-check: $(VENV)/.installed $(WHEELS)/.installed
	for wheel in dist/*.whl; do $(WHEELS)/bin/auditwheel show $$wheel || exit 1; done
	$(VENV)/bin/python release/check_wheel.py

clean:
	rm -rf $(VENV) $(WITH_EXTRAS) $(CLASSIC) $(ONEDL) $(WHEELS) build dist docs/_build *.egg-info

$(VENV)/.installed: requirements/default.txt requirements/mmpretrain.txt requirements/test.txt setup.py pyproject.toml
	@echo "Installing the pinned stack into $(VENV) (a few minutes the first time)"
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install -r requirements/default.txt \
		-r requirements/mmpretrain.txt -r requirements/test.txt
	$(VENV)/bin/python -m pip install --no-deps --no-build-isolation -e .
	touch $@

$(VENV)/.benchmarks: $(VENV)/.installed requirements/benchmarks.txt
	$(VENV)/bin/python -m pip install -r requirements/benchmarks.txt
	touch $@

$(VENV)/.video: $(VENV)/.installed requirements/video.txt
	$(VENV)/bin/python -m pip install -r requirements/video.txt
	touch $@

$(WITH_EXTRAS)/.installed: Makefile requirements/default.txt requirements/test.txt $(EXTRAS:%=requirements/%.txt) setup.py pyproject.toml
	@echo "Installing the pinned stack and the extras $(EXTRAS) into $(WITH_EXTRAS)"
	$(PYTHON) -m venv $(WITH_EXTRAS)
	$(WITH_EXTRAS)/bin/python -m pip install -r requirements/default.txt \
		-r requirements/test.txt $(EXTRAS:%=-r requirements/%.txt)
	$(WITH_EXTRAS)/bin/python -m pip install --no-deps --no-build-isolation -e .
	touch $@

# --no-cache-dir, because pip caches a wheel built from mmcv's sdist under the sdist's
# name alone: another environment with another torch would get that binary.
$(CLASSIC)/.installed: requirements/classic.txt requirements/mmpretrain.txt requirements/deploy.txt requirements/test.txt setup.py pyproject.toml
	@echo "Installing torch 2.1.2 and building mmcv 2.1.0 into $(CLASSIC)"
	$(PYTHON) -m venv $(CLASSIC)
	$(CLASSIC)/bin/python -m pip install -r requirements/classic.txt \
		-r requirements/mmpretrain.txt -r requirements/deploy.txt -r requirements/test.txt \
		wheel ninja psutil
	MMCV_WITH_OPS=1 $(CLASSIC)/bin/python -m pip install --no-cache-dir --no-build-isolation \
		mmcv==2.1.0
	$(CLASSIC)/bin/python -m pip install --no-deps --no-build-isolation -e .
	touch $@

# Sdists, built without torch in reach: with it, onedl-mmcv would compile its operators.
$(ONEDL)/.installed: requirements/onedl.txt requirements/test.txt setup.py pyproject.toml
	@echo "Installing the forks named onedl-* into $(ONEDL)"
	$(PYTHON) -m venv $(ONEDL)
	$(ONEDL)/bin/python -m pip install -r requirements/onedl.txt -r requirements/test.txt
	$(ONEDL)/bin/python -m pip install --no-deps --no-build-isolation -e .
	touch $@

$(WHEELS)/.installed: release/requirements.txt
	$(PYTHON) -m venv $(WHEELS)
	$(WHEELS)/bin/python -m pip install -r release/requirements.txt
	touch $@
