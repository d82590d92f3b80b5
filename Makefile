# What there is to do: make help.

IMAGE ?= agentpane/agent-sandbox:dev
GATEWAY_IMAGE ?= agentpane/sandboxctl:dev
ENGINE ?= docker

# How often `make races` runs each race, and how many claims it makes after that.
ROUNDS ?= 50
CLAIMS ?= 100000

# Flags of testdata/cluster, as "--name b --network 10.213.0.4/30".
CLUSTER_FLAGS ?=
CLUSTER = go -C testdata/cluster run . --sandbox-image docker.io/$(IMAGE) $(CLUSTER_FLAGS)

# Each module with code of ours, and the build tags of its tests.
export TEST_TAGS = integration,internet
export LINT_TAGS = $(TEST_TAGS),bench,soak

.DEFAULT_GOAL := help
.PHONY: help build install image gateway-image test lint unit integration bench races soak fuzz demo cluster-up cluster-down cluster-status cluster-env

help: ## explain the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build bin/sandboxctl
	CGO_ENABLED=0 go build -o bin/sandboxctl ./cmd/sandboxctl

install: ## install sandboxctl to Go's bin folder
	CGO_ENABLED=0 go install ./cmd/sandboxctl

image: ## build the sandbox image with a container engine (ENGINE=docker, IMAGE=…)
	$(ENGINE) build --tag $(IMAGE) examples/image

gateway-image: ## build the egress gateway's image with a container engine (ENGINE=docker, GATEWAY_IMAGE=…)
	$(ENGINE) build --tag $(GATEWAY_IMAGE) --file examples/gateway-image/Dockerfile .

test: lint unit integration ## run every check and test; brings its own cluster up

lint: ## vet, format, module files and a pinned linter
	@sh testdata/lint.sh

unit: ## run the tests that need no cluster, with the race detector
	go test -race ./...
	@if [ "$$(uname -s)" = Linux ]; then set -x; go -C testdata/cluster test -race ./...; fi

integration: ## run the tests that need a cluster, on one that this brings up
	@CLUSTER='$(CLUSTER)' sh testdata/integration.sh

bench: ## measure what the README claims, beside the peers, on the local cluster
	@CLUSTER='$(CLUSTER)' sh testdata/bench.sh

soak: ## hours of faults, SOAKTIME at most (4h): crashes after every write, failing requests, watches and clusters (SEED=1, SOAK=pattern of tests)
	@CLUSTER='$(CLUSTER)' sh testdata/soak.sh

fuzz: ## fuzz what reads strangers' input, FUZZTIME each (10m)
	@sh testdata/fuzz.sh

races: ## run the races for warm pods many times (ROUNDS=50), then many claims (CLAIMS=100000), on the cluster of SANDBOXCTL_TEST_KUBECONFIG
	SANDBOXCTL_RACE_ROUNDS=$(ROUNDS) go test -race -count=1 -tags integration -timeout 60m -run 'Race|Crash' ./reconcile/claim
	SANDBOXCTL_RACE_CLAIMS=$(CLAIMS) go test -v -count=1 -tags integration -timeout 120m -run ManyClaims ./reconcile/claim

demo: ## the main job on a real cluster: kind where an engine answers, else the local one
	@sh testdata/demo.sh

cluster-up: ## bring the local cluster up: Linux and root, no container engine
	@$(CLUSTER) up

cluster-down: ## end the local cluster and remove all that it left on the machine
	@$(CLUSTER) down

cluster-status: ## tell which parts of the local cluster run, and where their logs are
	@$(CLUSTER) status

cluster-env: ## print the variables that point kubectl and tests at the local cluster
	@$(CLUSTER) env
