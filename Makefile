GOLANGCI_VERSION = v2.15.0
ACTIONLINT_VERSION = v1.7.12
NFPM_VERSION = v2.45.2
CYCLONEDX_VERSION = v1.10.0
GORELEASER_VERSION = v2.15.1
GOVULNCHECK_VERSION = v1.4.0

.PHONY: check test race chaos restarts soak crash memory cost fuzz fuzz-short timing h2spec licences vuln bench bench-edge bench-stall pgo lint run \
	tools goreleaser stop deb sbom deploy-files workflows

check: ## what CI runs
	.ci/run

test:
	go test ./...

race:
	go test -race ./...

chaos: ## a minute of each kind of failure, ten minutes or so; prints its counts
	GREEN_API_CHAOS=$(or $(CHAOS),1m) go test -run '^TestChaos' -v -timeout 30m . ./test/chaos

restarts: ## twenty restarts and reloads under load on a supervisor's sockets, and four each without the listener wrapper and without sockets; ten minutes
	GREEN_API_RESTARTS=$(or $(RESTARTS),20) GREEN_API_RESTARTS_BESIDE=4 go test -count=1 -run '^TestRestarts$$' -v -timeout 1h ./test/restarts

soak: ## half an hour of load while everything goes wrong in turn; SOAK=2m for less; builds all of Go's library once
	.ci/clock .soak
	GREEN_API_SOAK=$(or $(SOAK),30m) go test -overlay .soak/overlay.json -tags clockstep -run '^TestSoak$$' -v -timeout 2h ./test/chaos

crash: ## kills the edge at a hundred random moments under load, and a hundred while it starts
	GREEN_API_CRASHES=$(or $(CRASHES),100) go test -count=1 -run '^TestKill9$$' -v ./test/chaos

memory: ## what an edge holds in memory for connections that rest and notifications that wait
	GREEN_API_MEMORY=1 go test -count=1 -run '^TestMemory$$' -v ./test/chaos

cost: ## what bodies cost that ask for as much as they can, one and eight at once; on a machine that does nothing else
	GREEN_API_COST=1 go test -count=1 -run '^TestCost' -v -timeout 30m ./notification

# Each target of fuzzing, PACKAGE:NAME. A whole Caddy is never twice alike, and would be minimized for ever.
FUZZ = ./notification:FuzzParse ./notification:FuzzVerdict ./notification:FuzzMeets ./notification:FuzzSchema ./notification:FuzzNumber ./quarantine:FuzzEntry ./quarantine:FuzzFile ./vendorapi:FuzzReceived \
	.:FuzzAuthorization .:FuzzClientAddress .:FuzzCaddyfile ./test/traps:FuzzRequest
FUZZTIME = 1m

fuzz: $(addprefix fuzz-of/,$(subst :,/,$(FUZZ))) ## a minute for each target; FUZZTIME=10m for longer

fuzz-short: ## the same, ten seconds for each
	$(MAKE) fuzz FUZZTIME=$(if $(filter command line environment,$(origin FUZZTIME)),$(FUZZTIME),10s)

fuzz-of/%:
	go test -run '^$$' -fuzz '^$(notdir $*)$$' -fuzztime $(FUZZTIME) $(FUZZFLAGS) -fuzzminimizetime 10x $(patsubst %/,%,$(dir $*))

timing: ## whether the time of a look-up tells of a token; on a machine that does nothing else
	GREEN_API_TIMING=1 go test -count=1 -run '^TestTiming$$' -v .

h2spec: ## HTTP/2 conformance, beside that of plain Caddy
	bench/h2spec/run

licences: ## writes docs/licences.md
	go run ./.ci/licences

vuln: ## known vulnerabilities in what is linked; asks vuln.go.dev
	test -x .lint/govulncheck || (mkdir -p .lint/vuln && cd .lint/vuln && (test -f go.mod || go mod init vuln) && \
		go get golang.org/x/vuln/cmd/govulncheck@$(GOVULNCHECK_VERSION) && go build -o ../govulncheck golang.org/x/vuln/cmd/govulncheck)
	.lint/govulncheck ./...

bench:
	go test -run '^$$' -bench . -benchmem ./...
	go run ./bench/edge

bench-edge: ## a quarter of an hour; beside Caddy without it, nginx, njs and HAProxy (Debian: nginx-light, libnginx-mod-http-js, haproxy)
	go run ./bench/edge

pgo: ## three minutes; the profile that cmd/caddy is built with, of this benchmark's load
	GOFLAGS=-trimpath go run ./bench/edge --cases text --only green_api --rounds 1 --seconds 30 --rate 0 --profile cmd/caddy/default.pgo

bench-stall: ## six minutes; the same faults behind nginx (Debian: nginx-light) and behind green_api
	go run ./bench/stall

lint: ## from a module of its own: a mirror may not have the list of all versions
	test -x .lint/golangci-lint || (mkdir -p .lint && cd .lint && (test -f go.mod || go mod init lint) && \
		go get github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION) && \
		go build -o golangci-lint github.com/golangci/golangci-lint/v2/cmd/golangci-lint)
	.lint/golangci-lint run

run:
	go run ./cmd/caddy run --config Caddyfile.example

stop: ## whether a stop loses what a handler works at for 20 seconds, under the limits of each file in deploy/
	GREEN_API_STOP=$(or $(STOP),20s) go test -count=1 -run '^TestStop$$' -v -timeout 5m ./test/deploy

# Each tool is built from a module of its own, as lint is: $(call tool,NAME,PACKAGE,VERSION)
define tool
	test -x .lint/$1-$3 || (mkdir -p .lint/of-$1 && cd .lint/of-$1 && (test -f go.mod || go mod init $1) && \
		go get $2@$3 && go build -o ../$1-$3 $2)
	ln -sf $1-$3 .lint/$1
endef

tools: ## into .lint, what the package, the SBOM and the workflows are made and checked with
	$(call tool,nfpm,github.com/goreleaser/nfpm/v2/cmd/nfpm,$(NFPM_VERSION))
	$(call tool,cyclonedx-gomod,github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod,$(CYCLONEDX_VERSION))
	$(call tool,actionlint,github.com/rhysd/actionlint/cmd/actionlint,$(ACTIONLINT_VERSION))

goreleaser: ## into .lint, for a release; a quarter of an hour
	$(call tool,goreleaser,github.com/goreleaser/goreleaser/v2,$(GORELEASER_VERSION))

deb: tools ## dist/caddy-green-api_VERSION_ARCH.deb for this machine; VERSION=0.1.0
	deploy/build v$(or $(VERSION),0.0.0) dist/caddy-green-api
	GOARCH=$$(go env GOARCH) VERSION=$(or $(VERSION),0.0.0) BINARY=dist/caddy-green-api \
		.lint/nfpm package --config deploy/deb/nfpm.yaml --packager deb --target dist/

sbom: tools ## dist/caddy-green-api.cdx.json: what is linked in
	deploy/build v$(or $(VERSION),0.0.0) dist/caddy-green-api
	.lint/cyclonedx-gomod bin -json -output dist/caddy-green-api.cdx.json dist/caddy-green-api

deploy-files: ## decodes the files of deploy/ as the programs do that read them
	cd test/deploy/files && go vet ./... && go test -count=1 ./...

workflows: tools ## checks .github/workflows
	.lint/actionlint
