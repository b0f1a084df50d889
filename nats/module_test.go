package nats

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

func TestCaddyfile(t *testing.T) {
	for text, want := range map[string]string{
		`nats {
			servers n1:4222 nats://n2:4222
			token {env.NATS_TOKEN}
		}`: `{"servers":["n1:4222","nats://n2:4222"],"token":"{env.NATS_TOKEN}"}`,
		`nats {
			servers n1:4222
			user edge {env.NATS_PASSWORD}
			tls {
				ca /etc/green-api/ca.pem
				cert /etc/green-api/edge.pem
				key /etc/green-api/edge.key
			}
			stream OTHER
			replicas 1
			max_size 2GiB
			partitions 16
			max_per_instance 500
			edge edge-1
			grace_period 2m
		}`: `{"servers":["n1:4222"],"user":"edge","password":"{env.NATS_PASSWORD}","tls":{"ca":"/etc/green-api/ca.pem","cert":"/etc/green-api/edge.pem","key":"/etc/green-api/edge.key"},` +
			`"stream":"OTHER","replicas":1,"max_size":2147483648,"partitions":16,"max_per_instance":500,"edge":"edge-1","grace_period":120000000000}`,
		`nats {
			servers n1:4222
			credentials nats.creds
		}`: `{"servers":["n1:4222"],"credentials":"nats.creds"}`,
	} {
		var q Queue
		if err := q.UnmarshalCaddyfile(caddyfile.NewTestDispenser(text)); err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got, _ := json.Marshal(q); string(got) != want {
			t.Errorf("%s:\n%s, want\n%s", text, got, want)
		}
	}
	for text, want := range map[string]string{
		"nats n1:4222":                       "takes no argument",
		"nats {\n path /var/lib\n}":          "unknown option 'path'",
		"nats {\n stream A\n stream B\n}":    "'stream' is there twice",
		"nats {\n servers\n}":                "rong argument count",
		"nats {\n user edge\n}":              "rong argument count",
		"nats {\n replicas three\n}":         "want one above 0",
		"nats {\n max_size much\n}":          "want a size such as 8GiB",
		"nats {\n tls {\n verify off\n }\n}": "unknown option 'verify' of tls",
		"nats {\n grace_period 0\n}":         "want a duration such as 15s",
		"nats {\n tls off\n}":                "rong argument count",
		"nats {\n partitions 32 64\n}":       "rong argument count",
	} {
		err := new(Queue).UnmarshalCaddyfile(caddyfile.NewTestDispenser(text))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}

// TestProvision: a mistake keeps a config from loading, and no error shows a secret.
func TestProvision(t *testing.T) {
	t.Setenv("NATS_TEST_SECRET", "correct-horse")
	t.Setenv("NATS_TEST_URL", "nats://edge:correct-horse@n1:4222")
	servers := []string{"n1:4222"}
	bad := filepath.Join(t.TempDir(), "seed")
	if err := os.WriteFile(bad, []byte("correct-horse"), 0o600); err != nil {
		t.Fatal(err)
	}
	for want, q := range map[string]Queue{
		"servers: none":                      {},
		"has a user or a token":              {Servers: []string{"{env.NATS_TEST_URL}"}},
		"one is no address":                  {Servers: []string{"nats://edge:correct-horse@n1:42 22"}},
		"unknown scheme":                     {Servers: []string{"http://n1:4222"}},
		"evaluated placeholder {env.NOPE_X}": {Servers: servers, Token: "{env.NOPE_X}"},
		"want one way to log in":             {Servers: servers, Token: "{env.NATS_TEST_SECRET}", NKey: "seed"},
		"want a name and a password":         {Servers: servers, User: "edge"},
		"credentials: open":                  {Servers: servers, Credentials: "/nowhere/nats.creds"},
		"nkey: ":                             {Servers: servers, NKey: bad},
		"tls: ca: open":                      {Servers: servers, TLS: &TLS{CA: "/nowhere/ca.pem"}},
		"stream: invalid name":               {Servers: servers, Stream: "GREEN.API"},
		"replicas: 7 is out of range":        {Servers: servers, Replicas: 7},
		"partitions: 1000 is out of range":   {Servers: servers, Partitions: 1000},
		"max_per_instance: 5000 is out of":   {Servers: servers, MaxPerInstance: 5000},
		"max_size: 5 is out of range":        {Servers: servers, MaxSize: 5},
		"grace_period: 31m0s is out of":      {Servers: servers, GracePeriod: caddy.Duration(31 * time.Minute)},
	} {
		err := q.provision()
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "horse") {
			t.Errorf("%v, want %s", err, want)
		}
	}
	q := Queue{Servers: servers, Token: "{env.NATS_TEST_SECRET}"}
	if err := q.provision(); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(q.Key(), "horse") || q.Replicas != 3 || q.MaxSize != 8<<30 || q.Partitions != 32 || q.MaxPerInstance != 1000 || q.Stream != "GREEN_API" || time.Duration(q.GracePeriod) != 15*time.Second {
		t.Errorf("%s: %+v", q.Key(), q)
	}
	other := Queue{Servers: servers, Token: "another"}
	same := Queue{Servers: servers, Token: "{env.NATS_TEST_SECRET}"}
	if err := other.provision(); err != nil {
		t.Fatal(err)
	}
	if err := same.provision(); err != nil {
		t.Fatal(err)
	}
	if q.Key() == other.Key() || q.Key() != same.Key() {
		t.Errorf("keys %s, %s and %s", q.Key(), other.Key(), same.Key())
	}
}
