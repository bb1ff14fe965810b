# What one does with the mart. `make` alone prints this list.
.DEFAULT_GOAL := help
CARGO ?= cargo
# Tests run a mart with failpoints, which do nothing until a test arms one; releases have none.
FAILPOINTS := api/failpoints
TARGET := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)

.PHONY: help prepare up test test-kafka check-deployment secrets lint bench faults faults-selftest clean

help: ## Print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

prepare: ## Look for what the build needs, and install or name what is missing
	@./.ci/prepare

up: prepare ## Build the mart and run all of it in one process
	$(CARGO) run --quiet --release --bin mart -- up

lint: prepare ## Format and lints
	$(CARGO) fmt --all -- --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(CARGO) clippy --workspace --all-targets --features $(FAILPOINTS) -- -D warnings

test: lint ## Everything: format, lints, unit, property, integration and acceptance tests
	$(CARGO) build --workspace --all-targets --features $(FAILPOINTS)
	MART_BIN=$(TARGET)/debug/mart $(TARGET)/debug/with-postgres $(CARGO) test --workspace --features $(FAILPOINTS)

test-kafka: prepare ## What speaks to a broker again, on a real Apache Kafka: needs Java and Maven
	@CARGO='$(CARGO)' CARGO_TARGET_DIR='$(TARGET)' FEATURES='$(FAILPOINTS)' ./.ci/test-kafka

check-deployment: ## Dockerfile, compose.yml and the workflows, with the tools made for them: needs Go and pip
	@CARGO_TARGET_DIR='$(TARGET)' ./.ci/check-deployment

secrets: ## Make the passwords and keys that compose.yml asks for, unless they are there
	@./deploy/make-secrets

bench: prepare ## Measure everything beside its baselines: one table (QUICK=1: whether it works; LONG=1: also at 5 million events)
	$(CARGO) build --release -p api --bin mart
	$(CARGO) bench -p event-store --bench commands -- $(if $(QUICK),--quick)
	$(if $(LONG),$(CARGO) bench -p event-store --bench growth -- $(if $(QUICK),--quick))
	$(CARGO) bench -p projections --bench reading -- $(if $(QUICK),--quick)
	MART_BIN=$(TARGET)/release/mart $(CARGO) bench -p load --bench shop -- $(if $(QUICK),--quick)
	$(CARGO) run --quiet --release -p figures

faults: prepare ## Break a whole mart on purpose and check its promises; SEED=1 MINUTES=3 repeat a run
	$(CARGO) build --quiet -p api -p faults --bins --features $(FAILPOINTS)
	$(TARGET)/debug/faults run

faults-selftest: prepare ## Plant defects into the mart one by one: the harness must find each
	$(CARGO) build --quiet -p api -p faults --bins --features $(FAILPOINTS)
	$(TARGET)/debug/faults selftest

clean: ## Remove what was built; the data in .mart stays
	$(CARGO) clean
