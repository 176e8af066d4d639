# What a person types. Everything else is `cargo xtask --help`.

CARGO ?= cargo

.PHONY: help build release setup images kubectl clients test check unit e2e examples test-vm critest kubelet conformance soak bench bench-vm demo deny clean

help: ## this list
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

build: setup ## everything, for debugging
	$(CARGO) build --workspace

release: setup ## the one binary to install: target/*/release/monopod
	$(CARGO) build --release --package monopod

setup: # what building and testing needs from apt
	@tests/setup

images: setup # the images of demo and tests, made from Debian's packages
	@tests/images/build >/dev/null

kubectl: # an unmodified kubectl from Debian, for the tests
	@tests/kubectl sid >/dev/null
	@tests/kubectl trixie >/dev/null

test: setup check unit simulate e2e examples ## all checks and all tests (end-to-end ones as root)

check: setup ## format, lints, and the project's own rules
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- --deny warnings
	$(CARGO) xtask check

.PHONY: simulate
simulate: setup ## the agent's life in virtual time under random faults (SEEDS=20000; SEED=7: one, told as a story)
	CARGO_PROFILE_RELEASE_LTO=off SIMULATE_SEEDS=$(or $(SEEDS),20000) $(if $(SEED),SIMULATE_SEED=$(SEED)) \
	$(CARGO) test --release --package monopod-agent --lib -- --nocapture simulation::pods

unit: setup ## the tests of each crate
	$(CARGO) build --workspace
	$(CARGO) test --workspace

clients: # client libraries of other languages, for the tests
	@tests/clients/setup >/dev/null

e2e: setup images kubectl clients ## a real daemon on a real kernel, each test in namespaces of its own
	$(CARGO) xtask e2e

examples: setup ## the patterns of Pods with real programs, each run and checked (some: examples/run NAME...; examples/README.md)
	@examples/run

test-vm: setup images ## the same in virtual machines: cgroup v2 alone, systemd, a power cut, AppArmor (VM_RUN: see tests/vm/run)
	$(CARGO) xtask vm

critest: setup images ## Kubernetes' own tests of container runtimes against `monopod cri` (needs Go, root)
	@tests/critest/run

kubelet: setup images ## an unmodified kubelet that runs a Pod by `monopod cri` (needs Go, root)
	@tests/kubelet/run

conformance: setup images kubectl ## Kubernetes' own end-to-end tests of Pods (needs Go, root, an hour the first time)
	@tests/conformance/run

soak: setup images ## two hundred cycles of create, exec, delete; nothing may be left
	$(CARGO) xtask e2e -- --ignored soak

bench: setup images ## times and memory of Monopod, podman, containerd, crun and the bare kernel (QUICK=1: two minutes, no peers)
	$(CARGO) xtask bench $(if $(QUICK),--quick,--write docs/benchmarks)

bench-vm: setup images ## its short form in a virtual machine with cgroup v2: ratios to the bare kernel (VM_RUN: see tests/vm/run)
	$(CARGO) xtask bench-vm

demo: ## a Pod, step by step, with explanations (KEEP=1: stay up; DEMO_ISOLATED=1: in namespaces of its own)
	@KEEP="$(KEEP)" DEMO_ISOLATED="$(DEMO_ISOLATED)" demo/run

deny: ## advisories and licences of dependencies (needs cargo-deny)
	$(CARGO) deny check

clean: ## what was built
	$(CARGO) clean
