package nats

import (
	"cmp"
	"errors"
	"fmt"
	"hash/maphash"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/dustin/go-humanize"
	natsgo "github.com/nats-io/nats.go"
	"go.uber.org/zap"

	"github.com/greenapi-community/caddy-green-api/queue"
)

func init() {
	caddy.RegisterModule(Queue{})
}

const (
	defaultStream         = "GREEN_API"
	defaultReplicas       = 3
	defaultMaxSize        = 8 << 30
	defaultPartitions     = 32
	defaultMaxPerInstance = 1000
	maxPartitions         = 256
	largestWindow         = maxAckPending / 2
	defaultGracePeriod    = 15 * time.Second
	longestGracePeriod    = 30 * time.Minute // as attempt_timeout
)

// Queue keeps the queue in a NATS JetStream stream that several edges share. It needs nats-server 2.14 or newer, and
// should have three servers of 2.15 or newer with `sync_interval: always`: without that, a power cut loses what was
// answered 200 in the last two minutes.
type Queue struct {
	// Servers of the cluster, such as `nats://n1:4222` or `tls://n1:4222`. Required. Placeholders are replaced.
	Servers []string `json:"servers,omitempty"`

	// How to log in: one of the following, or none. Placeholders are replaced.
	Credentials string `json:"credentials,omitempty"` // file with a JWT and its seed
	Token       string `json:"token,omitempty"`
	User        string `json:"user,omitempty"`
	Password    string `json:"password,omitempty"`
	NKey        string `json:"nkey,omitempty"` // file with a seed

	// How to trust the servers, and to be trusted by them.
	TLS *TLS `json:"tls,omitempty"`

	// Name of the stream, which is made if it is missing. Default: `GREEN_API`.
	Stream string `json:"stream,omitempty"`

	// How many servers have a copy. Default: 3.
	Replicas int `json:"replicas,omitempty"`

	// Maximum size of the stream in bytes. Default: 8 GiB.
	MaxSize int64 `json:"max_size,omitempty"`

	// How many parts of the stream can be served by different edges. It cannot change while the stream exists.
	// Default: 32.
	Partitions int `json:"partitions,omitempty"`

	// How many notifications of an instance may be in the stream, put there by all edges. `max_per_instance` of the
	// blocks has no effect. Default: 1000, at most 2048.
	MaxPerInstance int `json:"max_per_instance,omitempty"`

	// Name of this edge, by which it knows after a restart that it is being drained. Default: the host's name.
	Edge string `json:"edge,omitempty"`

	// How long a partition that another edge is to serve is kept for the deliveries under way. What lasts longer is
	// delivered twice; until then nothing else of the partition is delivered. Default: 15s, at most 30m.
	GracePeriod caddy.Duration `json:"grace_period,omitempty"`

	servers []string
	connect []natsgo.Option
	key     string
}

// TLS is how the servers are trusted, and this edge by them. Placeholders are replaced.
type TLS struct {
	CA   string `json:"ca,omitempty"`   // file with certificates, in the place of the system's
	Cert string `json:"cert,omitempty"` // file with the certificate of this edge
	Key  string `json:"key,omitempty"`  // and with its key
}

// CaddyModule returns the Caddy module information.
func (Queue) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "green_api.queues.nats", New: func() caddy.Module { return new(Queue) }}
}

var streamName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,100}$`)

// Provision checks the settings. It connects to nothing.
func (q *Queue) Provision(caddy.Context) error { return q.provision() }

func (q *Queue) provision() error {
	q.Stream = cmp.Or(q.Stream, defaultStream)
	if !streamName.MatchString(q.Stream) {
		return fmt.Errorf("stream: invalid name %q; want letters, digits, _ and -", q.Stream)
	}
	for _, number := range []struct {
		name          string
		value         *int
		usually, most int
	}{
		{"replicas", &q.Replicas, defaultReplicas, 5},
		{"partitions", &q.Partitions, defaultPartitions, maxPartitions},
		{"max_per_instance", &q.MaxPerInstance, defaultMaxPerInstance, largestWindow},
	} {
		*number.value = cmp.Or(*number.value, number.usually)
		if *number.value < 1 || *number.value > number.most {
			return fmt.Errorf("%s: %d is out of range; want 1 to %d", number.name, *number.value, number.most)
		}
	}
	q.MaxSize = cmp.Or(q.MaxSize, defaultMaxSize)
	if q.MaxSize < 1<<20 {
		return fmt.Errorf("max_size: %d is out of range; want at least 1MiB", q.MaxSize)
	}
	q.GracePeriod = cmp.Or(q.GracePeriod, caddy.Duration(defaultGracePeriod))
	if period := time.Duration(q.GracePeriod); period < 0 || period > longestGracePeriod {
		return fmt.Errorf("grace_period: %s is out of range; want at most %s", period, longestGracePeriod)
	}
	if q.Edge == "" {
		name, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("edge: %w; want a name", err)
		}
		q.Edge = name
	}
	if err := q.provisionServers(); err != nil {
		return err
	}
	return q.provisionLogin()
}

func (q *Queue) provisionServers() error {
	if len(q.Servers) == 0 {
		return errors.New("servers: none; want some, such as nats://n1:4222 nats://n2:4222 nats://n3:4222")
	}
	q.servers = nil
	for _, server := range q.Servers {
		address, err := resolve(server)
		if err != nil {
			return fmt.Errorf("servers: %w", err)
		}
		if !strings.Contains(address, "://") {
			address = "nats://" + address
		}
		u, err := url.Parse(address)
		switch {
		case err != nil || u.Host == "" || strings.Contains(address, ","):
			return errors.New("servers: one is no address; want such as nats://n1:4222") // it may have a password
		case u.User != nil:
			return fmt.Errorf("servers: that of %s has a user or a token; want them in 'user' or 'token'", u.Host)
		case u.Scheme != "nats" && u.Scheme != "tls" && u.Scheme != "ws" && u.Scheme != "wss":
			return fmt.Errorf("servers: %s://%s has an unknown scheme; want nats, tls, ws or wss", u.Scheme, u.Host)
		}
		q.servers = append(q.servers, address)
	}
	return nil
}

// provisionLogin reads what is needed to log in. No error has a secret in it.
func (q *Queue) provisionLogin() error {
	values := make(map[string]string)
	var given []string
	for _, setting := range []struct{ name, text string }{
		{"credentials", q.Credentials}, {"token", q.Token}, {"user", q.User}, {"nkey", q.NKey}, {"password", q.Password},
	} {
		if setting.text == "" {
			continue
		}
		text, err := resolve(setting.text)
		if err != nil {
			return fmt.Errorf("%s: %w", setting.name, err)
		}
		values[setting.name] = text
		if setting.name != "password" {
			given = append(given, setting.name)
		}
	}
	if len(given) > 1 {
		return fmt.Errorf("%s: want one way to log in", strings.Join(given, " and "))
	}
	if (values["user"] == "") != (values["password"] == "") {
		return errors.New("user: want a name and a password")
	}
	q.connect = nil
	switch {
	case values["credentials"] != "":
		if err := readable(values["credentials"]); err != nil {
			return fmt.Errorf("credentials: %w", err)
		}
		q.connect = append(q.connect, natsgo.UserCredentials(values["credentials"]))
	case values["token"] != "":
		q.connect = append(q.connect, natsgo.Token(values["token"]))
	case values["user"] != "":
		q.connect = append(q.connect, natsgo.UserInfo(values["user"], values["password"]))
	case values["nkey"] != "":
		option, err := natsgo.NkeyOptionFromSeed(values["nkey"])
		if err != nil {
			return fmt.Errorf("nkey: %w; want a file with a seed", err)
		}
		q.connect = append(q.connect, option)
	}
	return q.provisionTLS(values)
}

func (q *Queue) provisionTLS(values map[string]string) error {
	if q.TLS != nil {
		for _, setting := range []struct{ name, text string }{{"ca", q.TLS.CA}, {"cert", q.TLS.Cert}, {"key", q.TLS.Key}} {
			if setting.text == "" {
				continue
			}
			file, err := resolve(setting.text)
			if err == nil {
				err = readable(file)
			}
			if err != nil {
				return fmt.Errorf("tls: %s: %w", setting.name, err)
			}
			values[setting.name] = file
		}
		if (values["cert"] == "") != (values["key"] == "") {
			return errors.New("tls: want cert and key, or neither")
		}
		q.connect = append(q.connect, natsgo.Secure())
		if values["ca"] != "" {
			q.connect = append(q.connect, natsgo.RootCAs(values["ca"]))
		}
		if values["cert"] != "" {
			q.connect = append(q.connect, natsgo.ClientCert(values["cert"], values["key"]))
		}
	}
	settings := fmt.Sprint(q.Edge, q.servers, values, q.TLS != nil, q.Replicas, q.MaxSize, q.Partitions, q.MaxPerInstance, q.GracePeriod)
	q.key = fmt.Sprintf("nats %s %x", q.Stream, maphash.String(seed, settings))
	return nil
}

// seed makes the digest of secrets in a key worthless outside of this process: keys stand in logs.
var seed = maphash.MakeSeed()

// readable returns an error unless a file can be read.
func readable(path string) error {
	f, err := os.Open(path) //nolint:gosec // the operator's
	if err != nil {
		return err
	}
	return f.Close()
}

// resolve replaces placeholders; one that is unknown or empty is an error.
func resolve(text string) (string, error) {
	return caddy.NewReplacer().ReplaceOrErr(text, true, true)
}

// Key identifies the stream and how it is used.
func (q *Queue) Key() string { return q.key }

// Open connects. If the servers cannot be reached, the queue is opened all the same: until they can, notifications are
// answered 503.
func (q *Queue) Open() (queue.Store, error) {
	store, err := Open(q.options())
	if err != nil {
		return nil, err
	}
	return store, nil
}

func (q *Queue) options() Options {
	return Options{
		Servers: q.servers, Connect: q.connect, Stream: q.Stream, Replicas: q.Replicas, MaxSize: q.MaxSize, Partitions: q.Partitions,
		MaxPerInstance: q.MaxPerInstance, Edge: q.Edge, GracePeriod: time.Duration(q.GracePeriod),
		// One that was made for a config would be closed with it.
		Logger: func() *zap.Logger { return caddy.Log().Named("green_api.queues.nats") },
	}
}

// Stored returns false: what an edge leaves in the stream is delivered by the others.
func (*Queue) Stored() bool { return false }

// Apply does nothing: a change of any setting opens another store.
func (*Queue) Apply(queue.Store) {}

// UnmarshalCaddyfile sets up the engine from Caddyfile tokens. Syntax:
//
//	queue nats {
//	    servers          <addresses...>
//	    credentials      <file>
//	    token            <token>
//	    user             <name> <password>
//	    nkey             <file>
//	    tls {
//	        ca   <file>
//	        cert <file>
//	        key  <file>
//	    }
//	    stream           <name>
//	    replicas         <number>
//	    max_size         <size>
//	    partitions       <number>
//	    max_per_instance <notifications>
//	    edge             <name>
//	    grace_period     <duration>
//	}
func (q *Queue) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // nats
	if d.NextArg() {
		return d.Errf("queue nats takes no argument, but got '%s'; want a block with 'servers'", d.Val())
	}
	return each(d, "queue nats", map[string]func() error{
		"servers": func() error {
			q.Servers = append(q.Servers, d.RemainingArgs()...)
			if len(q.Servers) == 0 {
				return d.ArgErr()
			}
			return nil
		},
		"credentials": func() error { return texts(d, &q.Credentials) },
		"token":       func() error { return texts(d, &q.Token) },
		"user":        func() error { return texts(d, &q.User, &q.Password) },
		"nkey":        func() error { return texts(d, &q.NKey) },
		"tls": func() error {
			q.TLS = new(TLS)
			if d.NextArg() {
				return d.ArgErr()
			}
			return each(d, "tls", map[string]func() error{
				"ca":   func() error { return texts(d, &q.TLS.CA) },
				"cert": func() error { return texts(d, &q.TLS.Cert) },
				"key":  func() error { return texts(d, &q.TLS.Key) },
			})
		},
		"stream":   func() error { return texts(d, &q.Stream) },
		"replicas": func() error { return number(d, &q.Replicas) },
		"max_size": func() error {
			var text string
			if err := texts(d, &text); err != nil {
				return err
			}
			size, err := humanize.ParseBytes(text)
			if err != nil || size == 0 || size > 1<<62 {
				return d.Errf("invalid max_size '%s'; want a size such as 8GiB", text)
			}
			q.MaxSize = int64(size)
			return nil
		},
		"partitions":       func() error { return number(d, &q.Partitions) },
		"max_per_instance": func() error { return number(d, &q.MaxPerInstance) },
		"edge":             func() error { return texts(d, &q.Edge) },
		"grace_period": func() error {
			var text string
			if err := texts(d, &text); err != nil {
				return err
			}
			period, err := caddy.ParseDuration(text)
			if err != nil || period <= 0 {
				return d.Errf("invalid grace_period '%s'; want a duration such as 15s", text)
			}
			q.GracePeriod = caddy.Duration(period)
			return nil
		},
	})
}

// each parses the options of a block, each at most once.
func each(d *caddyfile.Dispenser, block string, options map[string]func() error) error {
	seen := make(map[string]bool)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		name := d.Val()
		parse, known := options[name]
		switch {
		case !known:
			return d.Errf("unknown option '%s' of %s", name, block)
		case seen[name]:
			return d.Errf("%s: '%s' is there twice", block, name)
		}
		seen[name] = true
		if err := parse(); err != nil {
			return err
		}
	}
	return nil
}

// texts reads the option's arguments.
func texts(d *caddyfile.Dispenser, to ...*string) error {
	if d.CountRemainingArgs() != len(to) {
		return d.ArgErr()
	}
	d.Args(to...)
	return nil
}

func number(d *caddyfile.Dispenser, to *int) error {
	var text string
	if err := texts(d, &text); err != nil {
		return err
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		return d.Errf("invalid number '%s'; want one above 0", text)
	}
	*to = n
	return nil
}

// Interface guards
var (
	_ caddy.Provisioner     = (*Queue)(nil)
	_ caddyfile.Unmarshaler = (*Queue)(nil)
	_ queue.Engine          = (*Queue)(nil)
)
