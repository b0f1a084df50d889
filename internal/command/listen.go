package command

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/greenapi-community/caddy-green-api/internal/judge"
	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/notification"
)

func listenCommand() *cobra.Command {
	var address, forward string
	l := &listener{client: &http.Client{
		Timeout: 180 * time.Second,
		// A handler that redirects has not taken the notification.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	cmd := &cobra.Command{
		Use:   "listen",
		Short: "Runs a handler that prints each notification",
		Long: `Runs a handler for trying things out: it prints each notification and answers it. With --forward
it forwards each one to a URL and answers with the status from there.

It checks nothing, neither the sender's address nor the token. Whatever it answers with 2xx is gone from
GREEN-API's queue.`,
		Example: `  caddy green-api listen --address 127.0.0.1:9001
  caddy green-api listen --address 127.0.0.1:9002 --status 503 --delay 2s
  caddy green-api listen --forward http://127.0.0.1:3000/webhook`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if l.status < 200 || l.status > 599 {
				return usageError(cmd, fmt.Errorf("invalid --status %d; want 200 to 599", l.status))
			}
			if l.delay < 0 {
				return usageError(cmd, fmt.Errorf("invalid --delay %s; want none below 0s", l.delay))
			}
			if forward != "" {
				target, err := url.Parse(forward)
				if err != nil || target.Host == "" || target.Scheme != "http" && target.Scheme != "https" {
					return usageError(cmd, fmt.Errorf("invalid --forward %q; want a URL such as http://127.0.0.1:3000/webhook", forward))
				}
				l.forward = forward
			}
			socket, err := net.Listen("tcp", address)
			if err != nil {
				return usageError(cmd, fmt.Errorf("--address: %w", err))
			}
			l.out = cmd.OutOrStdout()
			fmt.Fprintf(cmd.ErrOrStderr(), "listening on %s, Ctrl-C ends\n", socket.Addr())
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			return serveUntil(ctx, socket, &http.Server{Handler: l, ReadHeaderTimeout: 10 * time.Second})
		},
	}
	cmd.Flags().StringVar(&address, "address", ":8080", "address to listen on")
	cmd.Flags().IntVar(&l.status, "status", 200, "status to answer with")
	cmd.Flags().DurationVar(&l.delay, "delay", 0, "how long to wait before answering")
	cmd.Flags().StringVar(&forward, "forward", "", "URL to forward each notification to; its status becomes the answer")
	return cmd
}

// listener is a handler that prints each notification.
type listener struct {
	status  int
	delay   time.Duration
	forward string
	client  *http.Client

	mu  sync.Mutex
	out io.Writer
}

// serveUntil serves requests until ctx ends.
func serveUntil(ctx context.Context, socket net.Listener, server *http.Server) error {
	finished := make(chan struct{})
	context.AfterFunc(ctx, func() {
		defer close(finished)
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = server.Shutdown(ctx) // longer requests end with the process
	})
	if err := server.Serve(socket); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	<-finished
	return nil
}

// ServeHTTP prints a notification and answers it.
func (l *listener) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, judge.DefaultMaxKept))
	if err != nil {
		http.Error(w, "body could not be read", http.StatusBadRequest)
		return
	}
	select {
	case <-time.After(l.delay):
	case <-r.Context().Done():
		return
	}
	status := l.status
	if l.forward != "" {
		if status, err = l.handOn(r, body); err != nil {
			status = http.StatusBadGateway
		}
	}
	l.print(r, body, status, err)
	w.WriteHeader(status)
}

// handOn posts a notification to the --forward URL.
func (l *listener) handOn(r *http.Request, body []byte) (status int, err error) {
	request, err := http.NewRequestWithContext(r.Context(), r.Method, l.forward, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	for _, name := range []string{"Content-Type", "Content-Encoding", "Authorization"} {
		if value := r.Header.Get(name); value != "" {
			request.Header.Set(name, value)
		}
	}
	response, err := l.client.Do(request) //nolint:gosec // the user names the URL
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		return 0, fmt.Errorf("answer %d broke off: %w", response.StatusCode, err)
	}
	return response.StatusCode, nil
}

// print writes a line about a notification, and a line with its body.
func (l *listener) print(r *http.Request, body []byte, status int, err error) {
	about := r.Method + " " + r.URL.Path
	if n, syntax := notification.Parse(body); syntax == nil {
		words := []string{n.Type, n.Message, "instance " + n.Instance}
		if n.Chat != "" {
			words = append(words, "chat "+n.Chat)
		}
		if n.ID != "" {
			words = append(words, "id "+n.ID)
		}
		about = strings.Join(strings.Fields(strings.Join(words, " ")), " ")
	}
	var compact bytes.Buffer
	if json.Compact(&compact, body) == nil {
		body = compact.Bytes()
	}
	failed := ""
	if err != nil {
		failed = ": " + outcome.Printable(err.Error())
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	fmt.Fprintf(l.out, "%s  %d%s  %s\n    %s\n", time.Now().Format("15:04:05.000"), status, failed, outcome.Printable(about), outcome.Printable(string(body)))
}
