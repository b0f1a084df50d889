package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/spf13/cobra"

	"github.com/greenapi-community/caddy-green-api/sender"
)

const (
	demoToken    = "demo-token"
	demoPath     = "/green-api/webhook"
	demoHandlers = 2
)

func demoCommand() *cobra.Command {
	once := false
	d := new(demo)
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Runs an edge with two handlers, and sends it one notification of each kind",
		Long: `Runs an edge on this machine with two handlers behind it, and sends it the built-in examples, one of
every type and message type, as GREEN-API would. It prints what happened and what to try next. Then
the handlers print what they receive, until Ctrl-C.

The demo listens only on loopback, on free ports, and does not touch any running Caddy: its admin API is
a socket in a temporary directory, which holds all its data and is removed at the end.

Exit status: 0 if every example was delivered, 1 if not or if the edge could not be started, 2 if the
command was not understood.`,
		Example: `  caddy green-api demo
  caddy green-api demo --once`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkAdmin(cmd, d.admin); err != nil {
				return usageError(cmd, err)
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			context.AfterFunc(ctx, stop) // a second Ctrl-C ends at once
			d.out, d.name = &oneAtATime{to: cmd.OutOrStdout()}, cmd.Parent().CommandPath()
			all, err := d.run(ctx, once)
			if err != nil {
				fmt.Fprintf(cmd.ErrOrStderr(), "%s: %v\n", cmd.CommandPath(), err)
			}
			if err != nil || !all {
				return errFindings
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&once, "once", false, "exit when the examples have been sent")
	cmd.Flags().StringVar(&d.admin, "admin", "", "address for the demo's own admin API; default is a socket in its directory")
	return cmd
}

// demo is an edge with handlers, for as long as the command runs.
type demo struct {
	out   io.Writer
	name  string // of the parent command
	admin string
	dir   string // for its data
	url   string

	handlers [demoHandlers]*demoHandler
	serving  sync.WaitGroup // the handlers
}

// run runs the demo, and reports whether all examples were delivered.
func (d *demo) run(ctx context.Context, once bool) (all bool, err error) {
	if d.dir, err = os.MkdirTemp("", "green-api-demo-"); err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(d.dir)) }()
	if d.admin == "" {
		if d.admin, err = demoAdmin(d.dir); err != nil {
			return false, err
		}
	}
	defer d.serving.Wait()
	serving, end := context.WithCancel(context.Background())
	defer end()
	if err := d.startHandlers(serving); err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, caddy.Stop()) }()
	if err := d.startEdge(); err != nil {
		return false, err
	}
	fmt.Fprintf(d.out, "An edge runs on %s, with %d handlers behind it. Its data is in %s, as long as it runs.\n", d.url, demoHandlers, d.dir)
	if all, err = d.send(ctx); err != nil || once || ctx.Err() != nil {
		return all, err
	}
	fmt.Fprintf(d.out, demoNext, d.name, d.url, d.admin, demoToken, filepath.Join(d.dir, demoLog))
	for _, h := range d.handlers {
		h.prints.Store(true)
	}
	<-ctx.Done()
	fmt.Fprintf(d.out, "ending, and removing %s\n", d.dir)
	return all, nil
}

// startEdge runs Caddy in this process, and sets the URL.
func (d *demo) startEdge() error {
	config, err := d.config()
	if err != nil {
		return err
	}
	_, before, _ := caddy.BufferedLog() // otherwise Caddy prints on the terminal that it logs elsewhere
	if err := caddy.Load(config, true); err != nil {
		caddy.UnbufferDefaultLogger(before)
		return err
	}
	app, err := caddy.ActiveContext().App("http")
	if err != nil {
		return err
	}
	d.url = "http://" + app.(*caddyhttp.App).Servers["demo"].Listeners()[0].Addr().String() + demoPath
	return nil
}

const demoLog = "log.jsonl"

// config returns the edge's config, with all its data below one directory.
func (d *demo) config() ([]byte, error) {
	type object = map[string]any
	type list = []any
	var upstreams list
	for _, h := range d.handlers {
		upstreams = append(upstreams, object{"dial": h.address})
	}
	return json.Marshal(object{
		"admin":   object{"listen": d.admin, "config": object{"persist": false}},
		"storage": object{"module": "file_system", "root": filepath.Join(d.dir, "storage")},
		"logging": object{"logs": object{"default": object{
			"writer": object{"output": "file", "filename": filepath.Join(d.dir, demoLog), "roll": false},
		}}},
		"apps": object{
			"green_api": object{"quarantine": object{"path": filepath.Join(d.dir, "quarantine")}},
			"tls":       object{"disable_storage_clean": true}, // storage cleaning would leave an ID of this machine in the home directory
			"http": object{
				"grace_period": "5s",
				"servers": object{"demo": object{
					"listen": list{"127.0.0.1:0"}, "protocols": list{"h1"}, "automatic_https": object{"disable": true},
					"routes": list{
						object{"match": list{object{"path": list{demoPath + "*"}}}, "handle": list{object{
							"handler": "green_api", "ip_filter": object{"allow": list{"127.0.0.1"}}, "auth": object{"token": list{demoToken}},
							"reverse_proxy": object{"upstreams": upstreams},
						}}},
						object{"handle": list{object{"handler": "static_response", "status_code": 404}}},
					},
				}},
			},
		},
	})
}

// longestSocket is the longest socket path that every system allows.
const longestSocket = 100

// demoAdmin returns an address for the demo's own admin API: a socket in its directory, which no other user
// of the machine can enter, or a free port if the path would be too long.
func demoAdmin(dir string) (string, error) {
	if path := filepath.Join(dir, "admin.sock"); len(path) <= longestSocket {
		return "unix/" + path, nil
	}
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return socket.Addr().String(), socket.Close()
}

// send sends the examples, and prints what became of them. It reports whether all were delivered.
func (d *demo) send(ctx context.Context) (all bool, err error) {
	plan := sendPlan{instances: 1}
	queues, err := plan.queues()
	if err != nil {
		return false, err
	}
	total := plan.total()
	fmt.Fprintf(d.out, "It gets %d notifications, one of each type and message type, as GREEN-API sends them:\n", total)
	counting := watchEnds(d.url, d.admin)
	report, err := sender.Run(ctx, sender.Options{URL: d.url, Token: demoToken, Pause: time.Second, Attempts: 2}, queues...)
	if err != nil {
		return false, err
	}
	how := counting.end(ctx, report, plan.instanceIDs())
	if err := printReport(d.out, report, how, total, formatText); err != nil {
		return false, err
	}
	for i, h := range d.handlers {
		fmt.Fprintf(d.out, "handler %d took %d\n", i+1, h.taken.Load())
	}
	return how.known && how.delivered == total, nil
}

// A demoHandler counts the notifications that it takes, and prints them once it is told to.
type demoHandler struct {
	*listener
	address string
	taken   atomic.Int64
	prints  atomic.Bool
	prefix  string
	to      io.Writer
}

// startHandlers starts the handlers. They run until ctx ends.
func (d *demo) startHandlers(ctx context.Context) error {
	for i := range d.handlers {
		socket, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		h := &demoHandler{address: socket.Addr().String(), prefix: fmt.Sprintf("handler %d  ", i+1), to: d.out}
		h.listener = &listener{status: http.StatusOK, out: h}
		d.handlers[i] = h
		d.serving.Go(func() { _ = serveUntil(ctx, socket, &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}) }) // only a broken socket ends it early, and then send reports that
	}
	return nil
}

// ServeHTTP takes a notification.
func (h *demoHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.taken.Add(1)
	h.listener.ServeHTTP(w, r)
}

// Write prints what the listener writes about a notification.
func (h *demoHandler) Write(text []byte) (int, error) {
	if !h.prints.Load() {
		return len(text), nil
	}
	_, err := fmt.Fprintf(h.to, "%s%s", h.prefix, text)
	return len(text), err
}

// oneAtATime is a writer that several goroutines may use.
type oneAtATime struct {
	mu sync.Mutex
	to io.Writer
}

func (w *oneAtATime) Write(text []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.to.Write(text)
}

// demoNext suggests what to try next. Its arguments are the command, the URL, the admin API's address, the
// token and the log.
const demoNext = `
What to try now, in another terminal:
    # all of them once more
    %[1]s send %[2]s --token %[4]s --admin %[3]s
    # what is broken is answered 200, so that its queue goes on, and kept
    curl -i %[2]s -H 'Authorization: Bearer %[4]s' -H 'Content-Type: application/json' -d '{"typeWebhook":"incomingMessageReceived"}'
    %[1]s quarantine list --address %[3]s
    # a wrong token is answered 401, so that its queue waits until you set it right
    curl -i %[2]s -H 'Authorization: Bearer wrong' -H 'Content-Type: application/json' -d '{}'
    # is it ready, and what does it log
    %[1]s health --address %[3]s
    tail -f %[5]s

An edge of your own: this in a file named Caddyfile, with your name and your handlers, the token of
GREEN-API's console in the variable GREEN_API_TOKEN, and then 'caddy run'.

    hooks.example.com {
        green_api /green-api/webhook* {
            auth {
                token {env.GREEN_API_TOKEN}
            }
            reverse_proxy handler-1:8080 handler-2:8080
        }
        respond 404
    }
    # Every other name. Caddy alone would answer 200, and GREEN-API would take it for delivered.
    http://, https:// {
        respond 404
    }

From here on the handlers print what they take. Ctrl-C ends, and nothing stays behind.
`
