GOLANGCI_VERSION = v2.15.0
ACTIONLINT_VERSION = v1.7.12
NFPM_VERSION = v2.45.2
CYCLONEDX_VERSION = v1.10.0
GORELEASER_VERSION = v2.15.1
GOVULNCHECK_VERSION = v1.4.0
AXE_VERSION = 4.14.1
TYPESCRIPT_VERSION = 7.0.2

.PHONY: check browser console types axe test proofs race chaos queue-chaos restarts soak crash memory cost fuzz fuzz-short timing h2spec licences vuln bench bench-edge bench-stall bench-queue pgo lint run \
	tools goreleaser stop deb sbom nats nats-chaos deploy-files workflows

check: ## what CI runs
	.ci/run

test:
	go test ./...

proofs: ## what `go test ./...` skips: what takes seconds, or wants nginx, php, node, strace and the like (.ci/run installs them); three minutes
	GREEN_API_PROOFS=1 GREEN_API_CHAOS=$(or $(CHAOS),5s) go test -count=1 ./test/adopt ./test/chaos ./test/deliver ./test/deploy ./test/queue ./test/restarts ./test/traps
	GREEN_API_PROOFS=1 go test -count=1 -run '^TestCost' ./notification
	GREEN_API_PROOFS=1 go test -count=1 -run '^TestKill' ./queue/bolt
	GREEN_API_PROOFS=1 go test -count=1 -run '^TestFast' ./internal/api

race:
	go test -race ./...
	GREEN_API_PROOFS=1 GREEN_API_CHAOS=5s go test -race -count=1 ./test/adopt ./test/queue ./test/restarts ./test/traps

chaos: ## a minute of each kind of failure, some of them directly and through reverse_proxy, a quarter of an hour; prints its counts
	GREEN_API_PROOFS=1 GREEN_API_CHAOS=$(or $(CHAOS),1m) go test -run '^TestChaos' -v -timeout 30m . ./test/chaos

queue-chaos: ## an edge with a queue is killed, reloaded and starved for two minutes with each key, six in all; CHAOS=1h for longer; prints its counts
	GREEN_API_PROOFS=1 GREEN_API_CHAOS=$(or $(CHAOS),2m) go test -count=1 -parallel 1 -run '^TestQueueLosesNothing$$' -v -timeout 24h ./test/queue

restarts: ## twenty restarts and reloads under load on a supervisor's sockets, and four each without the listener wrapper and without sockets; ten minutes
	GREEN_API_PROOFS=1 GREEN_API_RESTARTS=$(or $(RESTARTS),20) GREEN_API_RESTARTS_BESIDE=4 go test -count=1 -run '^TestRestarts$$' -v -timeout 1h ./test/restarts

soak: ## an hour of load while everything goes wrong in turn, half of it directly and half through Caddy's reverse_proxy; SOAK=2m for less of each; builds all of Go's library once
	.ci/clock .soak
	for option in "" verbose_logs; do GREEN_API_SOAK=$(or $(SOAK),30m) GREEN_API_SOAK_OPTION=$$option \
		go test -overlay .soak/overlay.json -tags clockstep -run '^TestSoak$$' -v -timeout 2h ./test/chaos || exit 1; done

crash: ## kills the edge at a hundred random moments under load, and a hundred while it starts
	GREEN_API_CRASHES=$(or $(CRASHES),100) go test -count=1 -run '^TestKill9$$' -v ./test/chaos

memory: ## what an edge holds in memory for connections that rest and notifications that wait
	GREEN_API_MEMORY=1 go test -count=1 -run '^TestMemory$$' -v ./test/chaos

cost: ## what bodies cost that ask for as much as they can, one and eight at once; on a machine that does nothing else
	GREEN_API_COST=1 go test -count=1 -run '^TestCost' -v -timeout 30m ./notification

# Each target of fuzzing, PACKAGE:NAME. A whole Caddy is never twice alike, and would be minimized for ever.
FUZZ = ./notification:FuzzParse ./notification:FuzzVerdict ./notification:FuzzMeets ./notification:FuzzSchema ./notification:FuzzNumber ./notification:FuzzLex ./quarantine:FuzzEntry ./quarantine:FuzzFile ./queue:FuzzDecode ./queue/bolt:FuzzFile ./vendorapi:FuzzReceived \
	./internal/api:FuzzMarks ./console:FuzzMask ./console:FuzzRoute ./internal/doctor:FuzzWayTo ./internal/exchange:FuzzAnswer .:FuzzAuthorization .:FuzzClientAddress .:FuzzCaddyfile ./test/traps:FuzzRequest
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
	cd nats && ../.lint/govulncheck ./...

bench:
	go test -run '^$$' -bench . -benchmem ./...
	go run ./bench/edge

bench-edge: ## a quarter of an hour; beside Caddy without it, nginx, njs and HAProxy (Debian: nginx-light, libnginx-mod-http-js, haproxy)
	go run ./bench/edge

pgo: ## three minutes; the profile that cmd/caddy is built with, of this benchmark's load
	GOFLAGS=-trimpath go run ./bench/edge --cases text --only green_api --rounds 1 --seconds 30 --rate 0 --profile cmd/caddy/default.pgo

bench-queue: ## four minutes; how much the queue takes in and delivers, with quick and slow handlers, beside the quarantine on the same disk
	go run ./bench/queue

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
	GREEN_API_PROOFS=1 GREEN_API_STOP=$(or $(STOP),20s) go test -count=1 -run '^TestStop$$' -v -timeout 5m ./test/deploy

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

nats: ## the module nats, with nats-server processes; two minutes
	cd nats && go vet ./... && go test -count=1 ./...

nats-chaos: ## three edges and three servers are killed, cut off, stopped and reloaded for ten minutes; EDGES=1h for longer; prints its counts
	cd nats && GREEN_API_EDGES=$(or $(EDGES),10m) go test -count=1 -run '^TestQueueEdges$$' -v -timeout 24h .

browser: axe ## the console in a real browser (Debian: chromium); three minutes
	cd console/browsertest && go vet ./... && go test -count=1 -parallel 4 .

console: axe ## the same with bars that want a machine that does nothing else, and pictures of each screen into dist/console; ten minutes
	mkdir -p dist/console
	cd console/browsertest && GREEN_API_CONSOLE_FULL=1 GREEN_API_CONSOLE_PICTURES=$(CURDIR)/dist/console go test -count=1 -parallel 4 -v -timeout 30m .

types: ## checks the types in the console's JavaScript, which runs as it is written
	test -x .lint/typescript-$(TYPESCRIPT_VERSION)/node_modules/.bin/tsc || npm install --silent --ignore-scripts --no-fund --no-audit --no-save \
		--prefix .lint/typescript-$(TYPESCRIPT_VERSION) typescript@$(TYPESCRIPT_VERSION)
	.lint/typescript-$(TYPESCRIPT_VERSION)/node_modules/.bin/tsc -p console/jsconfig.json

axe: ## into .lint, what looks for barriers in a page
	test -d .lint/axe-$(AXE_VERSION) || (mkdir -p .lint/of-axe && cd .lint/of-axe && \
		npm pack --ignore-scripts --silent axe-core@$(AXE_VERSION) && tar -xzf axe-core-$(AXE_VERSION).tgz && mv package ../axe-$(AXE_VERSION))
	ln -sfn axe-$(AXE_VERSION) .lint/axe

deploy-files: ## decodes the files of deploy/ as the programs do that read them
	cd test/deploy/files && go vet ./... && go test -count=1 ./...

workflows: tools ## checks .github/workflows
	.lint/actionlint
