GOLANGCI_VERSION = v2.15.0

.PHONY: check test race chaos soak fuzz bench bench-stall lint run

check: ## what CI runs
	.ci/run

test:
	go test ./...

race:
	go test -race ./...

chaos: ## a minute of each kind of failure, ten minutes or so; prints its counts
	GREEN_API_CHAOS=$(or $(CHAOS),1m) go test -run '^TestChaos' -v -timeout 30m .

soak: ## half an hour of load while everything goes wrong in turn; SOAK=2m for less
	GREEN_API_SOAK=$(or $(SOAK),30m) go test -run '^TestSoak$$' -v -timeout 2h .

fuzz: ## a minute for each target; FUZZTIME=10m for longer
	go test -run '^$$' -fuzz '^FuzzParse$$' -fuzztime $(or $(FUZZTIME),1m) ./notification
	go test -run '^$$' -fuzz '^FuzzVerdict$$' -fuzztime $(or $(FUZZTIME),1m) ./notification
	go test -run '^$$' -fuzz '^FuzzMeets$$' -fuzztime $(or $(FUZZTIME),1m) ./notification
	go test -run '^$$' -fuzz '^FuzzSchema$$' -fuzztime $(or $(FUZZTIME),1m) ./notification
	go test -run '^$$' -fuzz '^FuzzEntry$$' -fuzztime $(or $(FUZZTIME),1m) ./quarantine
	go test -run '^$$' -fuzz '^FuzzReceived$$' -fuzztime $(or $(FUZZTIME),1m) ./vendorapi
	go test -run '^$$' -fuzz '^FuzzAuthorization$$' -fuzztime $(or $(FUZZTIME),1m) .
	go test -run '^$$' -fuzz '^FuzzClientAddress$$' -fuzztime $(or $(FUZZTIME),1m) .

bench:
	go test -run '^$$' -bench . -benchmem ./...

bench-stall: ## six minutes; the same faults behind nginx (Debian: nginx-light) and behind green_api
	go run ./bench/stall

lint: ## from a module of its own: a mirror may not have the list of all versions
	test -x .lint/golangci-lint || (mkdir -p .lint && cd .lint && (test -f go.mod || go mod init lint) && \
		go get github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION) && \
		go build -o golangci-lint github.com/golangci/golangci-lint/v2/cmd/golangci-lint)
	.lint/golangci-lint run

run:
	go run ./cmd/caddy run --config Caddyfile.example
