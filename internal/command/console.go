package command

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"os/user"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/spf13/cobra"

	"github.com/greenapi-community/caddy-green-api/console"
	"github.com/greenapi-community/caddy-green-api/internal/api"
	"github.com/greenapi-community/caddy-green-api/internal/outcome"
)

func consoleCommand() *cobra.Command {
	c := new(consolePage)
	var noOpen bool
	cmd := &cobra.Command{
		Use:   "console",
		Short: "Serves a page that shows what the edge does",
		Long: `Serves a page for a browser that shows what a running server does: who stands still and why, what ends
and how, the handlers, the quarantine with what is wrong with each entry, the queue. Entries can be replayed
and deleted there, and the queue be given orders.

It prints a URL, which lets one browser in, once, and opens it if the output is a terminal. The page is
served on this machine only, until Ctrl-C. From another one:

  ssh -L 8019:127.0.0.1:8019 hooks-1 caddy green-api console --address 127.0.0.1:8019

Then open the URL that it prints. The port has to be the same at both ends.

It finds the admin API as 'caddy reload' does: by --admin, by the admin option of --config, or at
localhost:2019. It asks nothing while nobody looks. The server logs who opened a body, replayed, deleted or
exported entries, saw phone numbers or gave an order to the queue, with the name of the user that runs this.

With --format json it prints an object with url.

Exit status: 0 when it is ended, 1 if it could not go on serving, 2 if the command was not understood or the
server could not be reached.`,
		Example: `  caddy green-api console
  caddy green-api console --admin unix//run/caddy/admin.sock --no-open
  caddy green-api console --address 127.0.0.1:8019 --config /etc/caddy/Caddyfile`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			if _, terminal := terminalOf(cmd.OutOrStdout()); terminal && !noOpen {
				c.open = openBrowser
			}
			return c.run(ctx, cmd)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&c.listen, "address", "127.0.0.1:0", "address on this machine to serve the page on; port 0 is a free one")
	flags.StringVar(&c.admin.address, "admin", "", "address of the admin API, such as localhost:2019 or unix//run/caddy/admin.sock")
	flags.StringVar(&c.admin.config, "config", "", "config file that says where the admin API is")
	flags.StringVar(&c.admin.adapter, "adapter", "", "config adapter for that file")
	flags.BoolVar(&noOpen, "no-open", false, "open no browser")
	flags.StringVar(&c.admin.format, "format", formatText, "text or json")
	return cmd
}

// A consolePage serves the page.
type consolePage struct {
	admin  adminFlags
	listen string
	open   func(url string) error // nil for none
}

// run serves until ctx ends.
func (c *consolePage) run(ctx context.Context, cmd *cobra.Command) error {
	if err := checkLoopback(c.listen); err != nil {
		return usageError(cmd, err)
	}
	admin, err := c.admin.find()
	if err != nil {
		return usageError(cmd, err)
	}
	edge, err := newAdminProxy(admin)
	if err != nil {
		return usageError(cmd, err)
	}
	version, err := versionOfEdge(admin)
	if err != nil {
		if err = noAnswer(cmd, admin, err); errors.Is(err, errFindings) {
			return exit(cmd)
		}
		return err
	}
	socket, err := net.Listen("tcp", c.listen)
	if err != nil {
		return usageError(cmd, fmt.Errorf("--address: %w", err))
	}
	address := socket.Addr().String()
	_, port, _ := net.SplitHostPort(address)
	token := rand.Text()
	page, err := console.New(console.Options{
		API:    edge,
		Access: console.Access{Token: token, Once: true, Name: thisUser()},
		Hosts:  []string{address, "127.0.0.1:" + port, "localhost:" + port, "[::1]:" + port},
		Bodies: true, Door: console.DoorCommand, Version: version,
		Refused: func(client string) {
			fmt.Fprintf(cmd.ErrOrStderr(), "%s: somebody at %s does not have the token, or it was used already\n", cmd.CommandPath(), client)
		},
	})
	if err != nil {
		_ = socket.Close()
		return usageError(cmd, err)
	}
	if err := c.say(cmd, "http://"+address+"/#token="+token); err != nil {
		_ = socket.Close()
		return err
	}
	if err := serveConsole(ctx, socket, page); err != nil {
		fmt.Fprintf(cmd.ErrOrStderr(), "%s: %v\n", cmd.CommandPath(), err)
		return errFindings
	}
	return nil
}

// say tells where the page is, and opens it.
func (c *consolePage) say(cmd *cobra.Command, url string) error {
	if c.admin.format == formatJSON {
		return json.NewEncoder(cmd.OutOrStdout()).Encode(map[string]string{"url": url})
	}
	if _, err := fmt.Fprintln(cmd.OutOrStdout(), url); err != nil {
		return err
	}
	fmt.Fprintln(cmd.ErrOrStderr(), "This URL lets one browser in, once. Ctrl-C ends.")
	if c.open != nil {
		if err := c.open(url); err != nil {
			fmt.Fprintln(cmd.ErrOrStderr(), "No browser could be opened; open the URL yourself.")
		}
	}
	return nil
}

// checkLoopback refuses an address that others can reach.
func checkLoopback(address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("invalid --address %q; want one such as 127.0.0.1:8019", address)
	}
	if ip, err := netip.ParseAddr(host); host == "localhost" || err == nil && ip.Unmap().IsLoopback() && ip.Zone() == "" {
		return nil
	}
	if port == "0" || port == "" {
		port = "8019"
	}
	return fmt.Errorf("--address %s: others could reach it; want 127.0.0.1:%[2]s, and on the machine with the browser: ssh -L %[2]s:127.0.0.1:%[2]s HOST", address, port)
}

// versionOfEdge returns the version of the edge, so that a wrong address is told before a browser is opened.
func versionOfEdge(admin string) (string, error) {
	response, err := within(adminPatience, func() (*http.Response, error) { return askAdmin(admin, http.MethodGet, "status", nil) })
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	var s api.Status
	if err := json.NewDecoder(response.Body).Decode(&s); err != nil || s.Version == "" {
		return "", errors.New("its answer is no status, so it is no admin API of a Caddy with green_api")
	}
	return s.Version, nil
}

// thisUser returns who runs the command.
func thisUser() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return cmp.Or(os.Getenv("USER"), os.Getenv("USERNAME"), "unknown")
}

// serveConsole serves until ctx ends, which ends the streams as well.
func serveConsole(ctx context.Context, socket net.Listener, page http.Handler) error {
	return serveUntil(ctx, socket, &http.Server{
		Handler: page, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		BaseContext: func(net.Listener) context.Context { return ctx },
	})
}

// An adminProxy hands requests on to an admin API. It keeps no connection open.
type adminProxy struct {
	address string // for people
	origin  string // "" for a socket
	client  *http.Transport
}

// newAdminProxy returns the proxy for an admin API at an address, as Caddy writes them.
func newAdminProxy(address string) (*adminProxy, error) {
	parsed, err := caddy.ParseNetworkAddress(address)
	if err != nil || parsed.PortRangeSize() > 1 {
		return nil, fmt.Errorf("invalid admin address %q", address)
	}
	p := &adminProxy{address: address}
	if parsed.IsUnixNetwork() {
		parsed.Host, _, _ = strings.Cut(parsed.Host, "|") // its permissions
	} else {
		p.origin = "http://" + parsed.JoinHostPort(0)
	}
	dialer := net.Dialer{Timeout: adminPatience}
	p.client = &http.Transport{
		DisableKeepAlives: true, DisableCompression: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, parsed.Network, parsed.JoinHostPort(0))
		},
	}
	return p, nil
}

// ServeHTTP hands a request on, and the answer back as it comes.
func (p *adminProxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	out := r.Clone(r.Context())
	out.RequestURI, out.URL.Scheme, out.Host = "", "http", ""
	out.URL.Host = cmp.Or(strings.TrimPrefix(p.origin, "http://"), "127.0.0.1") // what an admin API on a socket expects
	if p.origin != "" {
		out.Header.Set("Origin", p.origin)
	}
	response, err := p.client.RoundTrip(out)
	if err != nil {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusBadGateway)
		_ = json.NewEncoder(w).Encode(api.LineError{Error: "the edge cannot be reached: " + outcome.Printable(err.Error())})
		return
	}
	defer response.Body.Close()
	for _, name := range []string{"Content-Type", "Cache-Control", "X-Accel-Buffering"} {
		if value := response.Header.Get(name); value != "" {
			w.Header().Set(name, value)
		}
	}
	w.WriteHeader(response.StatusCode)
	if copyFlushed(w, response.Body) != nil {
		panic(http.ErrAbortHandler) // half an answer must not look like a whole one
	}
}

// copyFlushed copies what comes, and flushes it at once.
func copyFlushed(to http.ResponseWriter, from io.Reader) error {
	rc := http.NewResponseController(to)
	part := make([]byte, 32<<10)
	for {
		n, err := from.Read(part)
		if n > 0 {
			if _, err := to.Write(part[:n]); err != nil {
				return err
			}
			if err := rc.Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// openBrowser opens a URL in the browser of this machine.
func openBrowser(url string) error {
	name, args := "xdg-open", []string{url}
	switch runtime.GOOS {
	case "darwin":
		name = "open"
	case "windows":
		name, args = "rundll32", []string{"url.dll,FileProtocolHandler", url}
	}
	// Other users of the machine may see the arguments. Whoever of them is quicker is let in, and the browser is told
	// that the link was used already.
	cmd := exec.Command(name, args...) //nolint:gosec // the URL is ours
	if err := cmd.Start(); err != nil {
		return err
	}
	go func() { _ = cmd.Wait() }() // so that it is not left over
	return nil
}
