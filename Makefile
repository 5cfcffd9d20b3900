# SPDX-License-Identifier: GPL-3.0-or-later
# Each target sets up what it needs, on a fresh Debian machine too, and is cheap to run again.
.DEFAULT_GOAL := help
# In order, but for what `test` runs side by side
ifndef BESIDE
.NOTPARALLEL:
endif
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --no-print-directory

BIN := .venv/bin
PYTHON := $(BIN)/python
VERSION := $(shell sed -n 's/^version: *//p' galaxy.yml)
FILES := roles/conntracker/files
TARBALL := build/dist/btfleet-conntrack-$(VERSION).tar.gz
# What the protos say, for a control node without generated code
DESCRIPTION := plugins/plugin_utils/_fleet/config_v1.binpb
RELEASE := $(FILES)/btfleet-$(VERSION).tar.gz

# Says how long what follows took
STAGE := tools/stage.sh
# Those of `make test`; `make nightly` has them all
SCENARIOS ?= default remote_config

# molecule and ansible-lint call ansible's commands by name; an ordinary user's PATH has no sbin
export PATH := $(CURDIR)/$(BIN):$(PATH):/usr/sbin:/sbin

## Use
demo: ## boot a guest, roll out, make NATed traffic, show its translations
	@tools/ask_once.sh $(MAKE) SETUP_FOR=demo demo-steps

demo-steps: lab-setup build
	tools/demo.sh

lab: lab-setup ## boot a guest: make lab HOST=debian12; ICOUNT=1: its clock counts instructions
	@[ -n "$(HOST)" ] || { echo "lab: say which guest, as in: make lab HOST=debian12" >&2; exit 2; }
	$(PYTHON) -m lab up $(HOST) $(if $(ICOUNT),--icount)

lab-down: venv ## stop every guest
	$(PYTHON) -m lab down --all

matrix: lab-setup build ## every kind of host in turn, in real guests: make matrix ONLY="debian12 no-btf" CYCLES=100
	$(PYTHON) -m tests.matrix $(if $(ONLY),--only $(ONLY)) $(if $(CYCLES),--cycles $(CYCLES) --again)

bench: lab-setup build ## measure; writes JSON and a table under build/
	$(PYTHON) -m benchmarks
	$(PYTHON) -m benchmarks.rollout
	$(PYTHON) -m benchmarks.remote_config
	$(PYTHON) -m benchmarks.poller_agent
	$(PYTHON) -m benchmarks.fleet
	PYTHONPATH=build/collections $(PYTHON) -m benchmarks.compliance_reports

## Test
test: ## everything that has to pass before a change is taken in
	@tools/ask_once.sh $(STAGE) 'make test' $(MAKE) SETUP_FOR=test test-steps

test-steps: lab-setup build
	@$(STAGE) 'sanity, lint, clangs and unit, two at a time' \
		$(MAKE) SETUP_FOR= BESIDE=1 --jobs=2 --output-sync=target unit sanity lint clangs
	@$(STAGE) molecule $(MAKE) SETUP_FOR= molecule
	@echo "test: passed; unit tests:"; grep -E "^[0-9=].* passed|^NOT RUN" build/unit.log

lint: venv ## style, types, shell, YAML, ansible-lint, role specs, changelog
	@$(STAGE) lint tools/lint.sh

sanity: venv ## ansible-test sanity in a copy of the checkout, without ignore files
	@$(STAGE) sanity tools/sanity.sh

sanity-%: setup ## the same with another ansible-core, as in: make sanity-2.17
	tools/sanity.sh $*

unit: venv object build/tools/promtool ## unit tests; those that need root by sudo, where it is to be had
	@$(STAGE) unit tools/unit.sh | tee build/unit.log

build/tools/promtool: tools/promtool.sh | setup
	@tools/promtool.sh $@

clangs: venv ## compile the object with every clang that this Debian has, and verify it
	@$(STAGE) clangs tools/clang_versions.sh

fuzz: venv build/fuzz/packages ## coverage-guided fuzzing: make fuzz SECONDS=300 TARGETS="poll answer"
	@export PYTHONPATH=build/fuzz/packages; \
	for target in $(or $(TARGETS),$$($(PYTHON) -m tests.fuzz)); do \
		log=build/fuzz/$$target.log; \
		$(PYTHON) -m tests.fuzz $$target $(or $(SECONDS),30) >$$log 2>&1 \
			|| { tail -n 40 $$log; echo "fuzz: $$target: see $$log" >&2; exit 1; }; \
		echo "fuzz: $$target: $$(grep DONE $$log)"; \
	done

build/fuzz/packages: requirements/fuzz.txt .venv/.ready
	@rm -rf $@
	$(BIN)/pip install -qq --disable-pip-version-check --no-deps --require-hashes --target $@ -r $<
	@touch $@

molecule: lab-setup build ## molecule scenarios in real guests: make molecule SCENARIOS="fleet"
	$(BIN)/molecule test $(addprefix --scenario-name=,$(SCENARIOS)) 2>&1 | tee build/molecule.log
	@# molecule passes by a playbook that it cannot find
	@! grep 'Missing playbook' build/molecule.log

fresh: ## the two commands on a fresh Debian 12 and 13, as an ordinary user: make fresh SUITES=trixie COMMAND="make demo"
	tools/fresh.sh '$(or $(SUITES),bookworm trixie)' '$(or $(COMMAND),make demo && make test)'

nightly: ## what takes hours: fresh machines, every scenario, every kind of host, and fuzzing
	@$(MAKE) fresh
	@$(MAKE) molecule SCENARIOS="default tracker_faults remote_config faults fleet"
	@$(MAKE) matrix
	@$(MAKE) fuzz SECONDS=600

## Build
object: setup ## compile the BPF object for every architecture
	$(MAKE) -C bpf
	@mkdir -p $(FILES)
	@cp -p build/bpf/conntrack-*.bpf.o $(FILES)/

# Systems (folders) and ext4 disk images to take kernels from
ROOTS ?= $(wildcard $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/btfleet/images/*/disk.img)
btf-archive: venv object ## minimized BTF of installed kernels, beside the object: make btf-archive ROOTS="/ disk.img"
	@[ -n "$(ROOTS)" ] || { echo "btf-archive: name systems or disk images, as in: make btf-archive ROOTS=/" >&2; exit 2; }
	$(PYTHON) tools/build_btf_archive.py --object build/bpf/conntrack-x86_64.bpf.o \
		--out $(FILES)/btf-archive.tar.gz $(ROOTS)

release: venv ## pack the agent's wheel as the archive that hosts unpack
	@rm -rf build/wheel $(FILES)/btfleet-*.tar.gz && mkdir -p $(FILES)
	$(PYTHON) -m build --quiet --wheel --no-isolation --outdir build/wheel agent
	PYTHONPATH=build/collections $(PYTHON) tools/build_release.py --units agent/units \
		--requirements requirements/agent.txt --out $(FILES) build/wheel/*.whl

build: object release ## the collection's tarball, in build/dist/
	@[ -e $(RELEASE) ] || { echo "build: the agent's version is not galaxy.yml's $(VERSION)" >&2; exit 1; }
	$(BIN)/ansible-galaxy collection build --force --output-path build/dist
	$(PYTHON) tools/check_tarball.py $(TARBALL)

## Set-up
setup: ## install the Debian packages that are missing
	@tools/setup.sh

venv: setup .venv/.ready agent/btfleet/_kernel agent/btfleet/_config build/collections $(DESCRIPTION) ## make .venv and the checkout's links

.venv/.ready: requirements/dev.txt tools/venv.sh
	tools/venv.sh .venv 'python3.13 python3.12 python3.11' -r requirements/dev.txt
	@# `python -m btfleet` finds the agent from anywhere
	@$(PYTHON) -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
		| { read -r site; echo $(CURDIR)/agent > "$$site/checkout.pth"; }
	@touch $@

# The kernel library and what a config may say, under the agent's name: the wheel packs the same files
# there. Links whose target has moved since are removed.
agent/btfleet/_kernel agent/btfleet/_config: | setup
	@find agent/btfleet -maxdepth 1 -xtype l -delete
	@ln -sfn ../../plugins/module_utils/$(@F) $@

PROTOS := $(wildcard protos/btfleet/*/v*/*.proto)
$(DESCRIPTION): $(PROTOS) tools/protos.py .venv/.ready
	$(PYTHON) tools/protos.py protos agent $@
	@touch $@

# The checkout as an installed collection; ansible.cfg names this folder.
build/collections: | setup
	@mkdir -p $@/ansible_collections/btfleet
	@ln -sfn ../../../.. $@/ansible_collections/btfleet/conntrack

lab-setup: venv
	@$(PYTHON) -m lab setup

lock: venv ## pin requirements/dev.in anew
	tools/venv.sh build/lock $(PYTHON) -r requirements/dev.in
	@{ echo '# requirements/dev.in locked; written by `make lock`, not by hand.'; build/lock/bin/pip freeze; } \
		> requirements/dev.txt
	$(BIN)/pip-compile --quiet --generate-hashes --strip-extras --no-emit-index-url --no-emit-trusted-host \
		--no-emit-find-links --no-header --output-file=requirements/agent.txt requirements/agent.in

clean: ## remove what the build made; guests' cached images and .venv stay
	rm -rf build/bpf build/collections build/core-* build/dist build/lock build/sanity build/wheel build/*.log
	rm -f $(FILES)/*.bpf.o $(FILES)/btfleet-*.tar.gz agent/btfleet/_kernel agent/btfleet/_config
	rm -rf agent/btfleet/config agent/btfleet/agent $(DESCRIPTION)

help: ## this list
	@awk -F ':.*## ' '/^## / { print "\n" substr($$0, 4) ":" } \
		/^[a-z%-]+:.* ## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile

.PHONY: demo demo-steps lab lab-down matrix bench test test-steps lint sanity unit clangs fuzz fresh molecule nightly object btf-archive release build setup venv \
	lab-setup lock clean help
