# `make help` says what there is; README.md says the rest.

HTTP_PORT ?= 10000
HTTPS_PORT ?= 10443
ADMIN_PORT ?= 9901
STORE_PORT ?= 8081
RUN_DIR ?= .run
DATABASE_URL ?= sqlite://$(RUN_DIR)/dcr.db
CONCURRENCY ?= 2
ENVOY ?=
# Only for run.sh: builds and tests have no business with the gateway's database.
RUN_VARIABLES = $(foreach name,HTTP_PORT HTTPS_PORT ADMIN_PORT STORE_PORT RUN_DIR DATABASE_URL CONCURRENCY ENVOY,\
	$(name)='$($(name))')

# The newest, and the newest of each minor version that the filter is tested with.
# (The package of 1.38.3 was built without V8.)
export ENVOY_VERSION := 1.40.0
ENVOY_MATRIX := 1.36.4 1.37.0 1.38.2 1.39.3 $(ENVOY_VERSION)

WASM := target/wasm32-wasip1/release/dcr_edge.wasm
WASM_TARGET_HINT := add the compilation target wasm32-wasip1 to your Rust installation

.DEFAULT_GOAL := help
.PHONY: help run test bench build lint image clean tools

help: ## this list
	@printf 'dcr-edge: open Dynamic Client Registration, made safe, at the Envoy edge\n\n'
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16
	@printf '\nVariables of make run: HTTP_PORT=%s HTTPS_PORT=%s ADMIN_PORT=%s STORE_PORT=%s\n' \
		'$(HTTP_PORT)' '$(HTTPS_PORT)' '$(ADMIN_PORT)' '$(STORE_PORT)'
	@printf '  RUN_DIR=%s DATABASE_URL=sqlite://$$(RUN_DIR)/dcr.db CONCURRENCY=%s ENVOY=%s\n' \
		'$(RUN_DIR)' '$(CONCURRENCY)' '$(ENVOY)'

run: ## build, then start store and Envoy in the foreground; prints the calls to try
	@$(RUN_VARIABLES) envoy/run.sh --check
	@$(MAKE) --no-print-directory build
	@$(RUN_VARIABLES) exec envoy/run.sh

test: build ## all tests, the filter in real Envoys included
	@envoy=$$(envoy/get-envoy.sh $(ENVOY_VERSION)) || exit 1; \
	matrix=; \
	for version in $(ENVOY_MATRIX); do \
		path=$$(envoy/get-envoy.sh --pinned $$version) || exit 1; \
		matrix=$${matrix:+$$matrix:}$$path; \
	done; \
	DCR_TEST_ENVOY=$$envoy DCR_TEST_ENVOY_MATRIX=$$matrix cargo test --release

bench: build ## benchmarks against peers; prints a table, writes target/bench/*.json
	@envoy=$$(envoy/get-envoy.sh $(ENVOY_VERSION)) || exit 1; \
	DCR_TEST_ENVOY=$$envoy cargo bench --profile release --bench edge

build: tools ## the filter (target/wasm32-wasip1/release/dcr_edge.wasm) and the store (target/release/dcr-store)
	@cargo rustc --lib --crate-type cdylib --target wasm32-wasip1 --profile filter
	@mkdir -p $(dir $(WASM))
	@cmp -s target/wasm32-wasip1/filter/dcr_edge.wasm $(WASM) || cp target/wasm32-wasip1/filter/dcr_edge.wasm $(WASM)
	@cargo build --release

lint: tools ## formatting, clippy and shellcheck; warnings are errors
	@cargo fmt --check
	@cargo clippy --release --all-targets -- -D warnings
	@cargo clippy --release --lib --target wasm32-wasip1 -- -D warnings
	@if command -v shellcheck >/dev/null; then shellcheck envoy/*.sh tests/bench/*.sh .ci/run; \
	else echo 'lint: shellcheck is not installed, the scripts were not checked'; fi

image: ## the store and the filter as a container image, dcr-edge:latest
	@command -v docker >/dev/null || { echo 'image: docker is missing: install Docker or an engine with its command' >&2; exit 1; }
	@docker build --file envoy/Dockerfile --tag dcr-edge:latest .

clean: ## remove what was built and fetched; RUN_DIR stays
	@rm -rf target .tools

tools:
	@command -v cargo >/dev/null || { echo 'make: cargo is missing: install Rust, preferably with rustup' >&2; exit 1; }
	@[ -d "$$(rustc --print target-libdir --target wasm32-wasip1)" ] || \
		if command -v rustup >/dev/null; then \
			rustup target add wasm32-wasip1 || { echo 'make: rustup could not $(WASM_TARGET_HINT)' >&2; exit 1; }; \
		else echo 'make: $(WASM_TARGET_HINT)' >&2; exit 1; fi
