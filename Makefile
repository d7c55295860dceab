# Clouds in Qilu: `make up` starts everything on this machine; the other targets are for developers.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
UV     := $(BIN)/uv
UV_VERSION := 0.13.9

.DEFAULT_GOAL := help
.PHONY: help setup up servers test soak test-cluster test-kafka test-kubernetes check format bench bench-registry bench-gateway bench-recovery site wheel roots lock clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

$(UV):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: set PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --retries 1 "uv==$(UV_VERSION)" || { \
		echo "The first start fetches packages. Without access to pypi.org, name a mirror: PIP_INDEX_URL and UV_INDEX_URL."; exit 1; }

# Exact versions and checksums come from requirements.lock; wheels only, so no compiler is ever needed.
INSTALL = $(UV) pip install --quiet --python $(BIN)/python --only-binary :all: --constraint requirements.lock

$(VENV)/.stack: $(UV) pyproject.toml requirements.lock
	$(INSTALL) --editable '.[stack]'
	@touch $@

$(VENV)/.dev: $(UV) pyproject.toml requirements.lock
	$(INSTALL) --editable '.[dev]'
	@touch $@ $(VENV)/.stack

setup: $(VENV)/.dev ## the developer's environment, from the lock file

up: $(VENV)/.stack ## start the embedded stack: broker, gateway, store, platform, equipment
	@$(BIN)/qilu up $(ARGS)

servers: ## real Mosquitto, InfluxDB, PostgreSQL, nginx and Chromium for the tests (Debian and Ubuntu, as root or with sudo)
	@tests/servers.sh

test: setup servers ## all tests, against real servers
	$(BIN)/pytest -n 2 --dist loadfile $(ARGS)

SOAK = tests/e2e/test_gateway_faults.py tests/integration/test_gateway_fuzz.py tests/e2e/test_gateway_soak.py \
       tests/unit/test_columns_differential.py tests/integration/test_gateway_two_ways.py \
       tests/integration/test_platform_bad_lines.py tests/integration/test_platform_interleavings.py \
       tests/integration/test_platform_replicas.py tests/integration/test_full_disks.py \
       tests/e2e/test_restart_matrix.py tests/integration/test_doors_opcua.py \
       tests/integration/test_doors_modbus.py tests/e2e/test_console_accessibility.py tests/e2e/test_console_show.py \
       tests/integration/test_dashboards_queries.py tests/integration/test_export_memory.py \
       tests/e2e/test_cluster_faults.py

soak: setup servers ## ten times the faults, fuzzed messages by the million, ten million lines, an hour of memory; a part: ARGS="-k killed_again"
	QILU_SOAK=1 $(BIN)/pytest $(SOAK) -s $(ARGS)

CLUSTER = tests/integration/test_rabbitmq.py tests/integration/test_rabbitmq_certificates.py \
          tests/e2e/test_cluster_faults.py tests/e2e/test_compose_cluster.py

test-cluster: setup servers ## three RabbitMQ nodes from Debian 13 beside this system (root; kept in ~/.cache/qilu or $QILU_CACHE)
	QILU_CLUSTER=1 $(BIN)/pytest $(CLUSTER) -s $(ARGS)

test-kafka: setup servers ## Apache Kafka itself (Java; Maven fetches its jars; kept in ~/.cache/qilu or $QILU_CACHE)
	QILU_KAFKA=1 $(BIN)/pytest tests/integration/test_gateway_kafka.py $(ARGS)

test-kubernetes: setup ## the chart on a Kubernetes of one node (root, Go, Docker; kept in ~/.cache/qilu or $QILU_CACHE); see docs/kubernetes.md
	tests/kubernetes/run.sh $(ARGS)

grafana-schema: setup ## Grafana's published types for tests/unit/test_dashboards_schema.py (npm; kept in ~/.cache/qilu or $QILU_CACHE)
	$(BIN)/python tests/grafana_schema.py

check: setup ## formatting, lint, types, imports, wording
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tests/word_list.py

format: setup ## format, and fix what ruff can fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

BENCH = PYTHONPATH=tests:tests/bench $(BIN)/python -m pytest -o python_files='bench_*.py' -o python_functions='bench_*' -s -q

bench: setup ## benchmarks; they print the machine and ratios; one file: ARGS=tests/bench/bench_simulation.py
	$(BENCH) $(if $(findstring tests/,$(ARGS)),,tests/bench --ignore tests/bench/bench_registry.py --ignore tests/bench/bench_gateway.py) $(ARGS)

bench-registry: setup ## the registry at 10,000,000 units (QILU_BENCH_UNITS for fewer), on both databases
	$(BENCH) tests/bench/bench_registry.py $(ARGS)

bench-gateway: setup servers ## how fast the gateway is, against the store's own ceiling
	PYTHONPATH=tests:tests/bench $(BIN)/python tests/bench/bench_gateway.py $(ARGS)

bench-recovery: setup servers ## how fast a killed gateway stores again, with nothing lost
	PYTHONPATH=tests:tests/bench $(BIN)/python tests/bench/bench_recovery.py $(ARGS)

site: setup ## the documentation as a site, in site/
	$(BIN)/zensical build --strict

wheel: setup ## one file to install anywhere, in dist/ (docs/install.md)
	$(BIN)/python -m hatchling build -t wheel -d dist

roots: ## make up, make check and the unit tests on fresh Debian 12 and 13 (needs root and debootstrap); one: ARGS=trixie
	@tests/roots/fresh.sh $(ARGS)

lock: $(UV) ## resolve the dependencies anew into requirements.lock
	$(UV) pip compile --quiet --universal --python-version 3.11 --upgrade --generate-hashes --no-annotate --no-header --all-extras pyproject.toml -o requirements.lock

clean: ## remove the environment and everything that was built
	rm -rf $(VENV) dist site .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
