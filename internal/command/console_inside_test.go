package command

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
)

// TestAdminProxy: an answer comes as it is written, over TCP and over a socket, and no connection stays.
func TestAdminProxy(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			address := "127.0.0.1:0"
			if network == "unix" {
				address = filepath.Join(t.TempDir(), "a.sock")
			}
			socket, err := net.Listen(network, address)
			if err != nil {
				t.Skip(err) // a system without such sockets
			}
			more, gone := make(chan struct{}), make(chan error, 1)
			closed := make(chan struct{}, 10)
			admin := &http.Server{
				Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					body, _ := io.ReadAll(r.Body)
					w.Header().Set("Content-Type", "application/x-ndjson")
					w.Header().Set("Set-Cookie", "a=b")
					w.WriteHeader(http.StatusAccepted)
					fmt.Fprintf(w, "%s %s %s %s %s\n", r.Method, r.RequestURI, r.Host, r.Header.Get("Origin"), body)
					_ = http.NewResponseController(w).Flush()
					<-more
					if r.URL.Path == "/broken" {
						panic(http.ErrAbortHandler)
					}
					fmt.Fprintln(w, "second")
					_ = http.NewResponseController(w).Flush()
					<-r.Context().Done()
					gone <- r.Context().Err()
				}),
				ConnState: func(_ net.Conn, state http.ConnState) {
					if state == http.StateClosed {
						closed <- struct{}{}
					}
				},
			}
			go admin.Serve(socket)
			defer admin.Close()
			where, host, origin := socket.Addr().String(), socket.Addr().String(), "http://"+socket.Addr().String()
			if network == "unix" {
				where, host, origin = "unix/"+where+"|0220", "127.0.0.1", ""
			}
			p, err := newAdminProxy(where)
			if err != nil {
				t.Fatal(err)
			}
			server := httptest.NewServer(p)
			defer server.Close()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			r, _ := http.NewRequestWithContext(ctx, "POST", server.URL+"/green_api/x?a=b", strings.NewReader("c=d"))
			response, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer response.Body.Close()
			text := make([]byte, 1000)
			n, err := response.Body.Read(text)
			if want := "POST /green_api/x?a=b " + host + " " + origin + " c=d\n"; err != nil || string(text[:n]) != want || response.StatusCode != 202 {
				t.Errorf("%v: %d %q, want %q", err, response.StatusCode, text[:n], want)
			}
			if response.Header.Get("Content-Type") != "application/x-ndjson" || response.Header.Get("Set-Cookie") != "" {
				t.Errorf("header %v", response.Header)
			}
			more <- struct{}{}
			if n, err := response.Body.Read(text); err != nil || string(text[:n]) != "second\n" {
				t.Errorf("%v: %q", err, text[:n])
			}
			cancel()
			if err := <-gone; !errors.Is(err, context.Canceled) {
				t.Errorf("the admin API is told %v", err)
			}
			<-closed

			close(more)
			response, err = http.Get(server.URL + "/broken")
			if err == nil {
				defer response.Body.Close()
				_, err = io.ReadAll(response.Body)
			}
			if err == nil {
				t.Error("half an answer looks whole")
			}
			<-closed
		})
	}
	for _, bad := range []string{"127.0.0.1:1-9", "tcp/127.0.0.1:a"} {
		if _, err := newAdminProxy(bad); err == nil {
			t.Errorf("%s is taken for an address", bad)
		}
	}
	if p, err := newAdminProxy("127.0.0.1:1"); err != nil {
		t.Error(err)
	} else {
		w := httptest.NewRecorder()
		p.ServeHTTP(w, httptest.NewRequest("GET", "/green_api/status", nil))
		if w.Code != 502 || !strings.HasPrefix(w.Body.String(), `{"error":"the edge cannot be reached: `) {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	}
}

// TestConsoleSays: the URL is all that goes to standard output, and a browser that does not open is no failure.
func TestConsoleSays(t *testing.T) {
	var opened []string
	for _, test := range []struct {
		c           consolePage
		out, errors string
	}{
		{consolePage{admin: adminFlags{format: formatText}}, "URL\n", "This URL lets one browser in, once. Ctrl-C ends.\n"},
		{consolePage{admin: adminFlags{format: formatJSON}}, `{"url":"URL"}` + "\n", ""},
		{consolePage{admin: adminFlags{format: formatText}, open: func(url string) error { opened = append(opened, url); return nil }}, "URL\n", "This URL lets one browser in, once. Ctrl-C ends.\n"},
		{
			consolePage{admin: adminFlags{format: formatText}, open: func(string) error { return errors.New("none") }},
			"URL\n",
			"This URL lets one browser in, once. Ctrl-C ends.\nNo browser could be opened; open the URL yourself.\n",
		},
	} {
		var out, problems bytes.Buffer
		cmd := new(cobra.Command)
		cmd.SetOut(&out)
		cmd.SetErr(&problems)
		if err := test.c.say(cmd, "URL"); err != nil || out.String() != test.out || problems.String() != test.errors {
			t.Errorf("%v: %q, %q", err, out.String(), problems.String())
		}
	}
	if len(opened) != 1 || opened[0] != "URL" {
		t.Errorf("opened %q", opened)
	}
}

// TestServeConsole: an interrupt ends what is open.
func TestServeConsole(t *testing.T) {
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, interrupt := context.WithCancel(t.Context())
	began, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- serveConsole(ctx, socket, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			close(began)
			<-r.Context().Done()
		}))
	}()
	go http.Get("http://" + socket.Addr().String())
	<-began
	interrupt()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(30 * time.Second):
		t.Error("it goes on")
	}
}

// TestLoopbackOnly: what is this machine's alone.
func TestLoopbackOnly(t *testing.T) {
	for address, good := range map[string]bool{
		"127.0.0.1:0": true, "127.9.9.9:8019": true, "localhost:0": true, "[::1]:0": true, "[::ffff:127.0.0.1]:0": true,
		":0": false, "0.0.0.0:0": false, "[::]:0": false, "10.0.0.1:0": false, "LOCALHOST.evil.test:0": false, "[fe80::1%lo]:0": false, "127.0.0.1": false, "": false,
	} {
		if err := checkLoopback(address); (err == nil) != good {
			t.Errorf("%s: %v", address, err)
		}
	}
}
