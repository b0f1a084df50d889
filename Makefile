GOLANGCI_VERSION = v2.15.0
GOVULNCHECK_VERSION = v1.4.0

.PHONY: check test race chaos soak crash memory cost fuzz fuzz-short timing h2spec licences vuln bench bench-edge bench-stall pgo lint run

check: ## what CI runs
	.ci/run

test:
	go test ./...

race:
	go test -race ./...

chaos: ## a minute of each kind of failure, ten minutes or so; prints its counts
	GREEN_API_CHAOS=$(or $(CHAOS),1m) go test -run '^TestChaos' -v -timeout 30m . ./test/chaos

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
