package edgetest

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Raw sends bytes over a new connection and returns the answer.
func (e *Edge) Raw(text string) *http.Response {
	e.T.Helper()
	conn, err := net.Dial("tcp", "127.0.0.1:"+e.Port)
	if err != nil {
		e.T.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(conn, text); err != nil {
		e.T.Fatal(err)
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		e.T.Fatal(err)
	}
	return response
}

const RawHead = "POST /green-api/webhook HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + Token + "\r\n"

// Request returns a complete request with a right token, a body with its Content-Length, and further header
// lines.
func Request(body string, lines ...string) string {
	return RawHead + strings.Join(append(lines, fmt.Sprintf("Content-Length: %d", len(body))), "\r\n") + "\r\n\r\n" + body
}

// AnswersTo sends bytes, closes the sending side, and returns the statuses of all answers.
func (e *Edge) AnswersTo(text string) (statuses []int) {
	e.T.Helper()
	conn, err := net.Dial("tcp", "127.0.0.1:"+e.Port)
	if err != nil {
		e.T.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	var sent sync.WaitGroup
	sent.Go(func() { // the other side may stop reading
		io.WriteString(conn, text)
		conn.(*net.TCPConn).CloseWrite()
	})
	defer sent.Wait()
	answers := bufio.NewReader(conn)
	for {
		response, err := http.ReadResponse(answers, nil)
		if err != nil {
			return statuses
		}
		io.Copy(io.Discard, response.Body)
		statuses = append(statuses, response.StatusCode)
	}
}

// Chunks writes a body in chunks of a size.
func Chunks(body string, size int) string {
	var text strings.Builder
	for len(body) > 0 {
		n := min(size, len(body))
		fmt.Fprintf(&text, "%x\r\n%s\r\n", n, body[:n])
		body = body[n:]
	}
	return text.String() + "0\r\n\r\n"
}

// Logged returns the log lines that contain a text.
func (e *Edge) Logged(text string) (lines string) {
	for line := range strings.Lines(e.Logs.All()) {
		if strings.Contains(line, text) {
			lines += line
		}
	}
	return lines
}

// HangUpAfter posts a body and hangs up when began is closed.
func (e *Edge) HangUpAfter(body string, began <-chan struct{}) {
	e.T.Helper()
	ctx, hangUp := context.WithCancel(context.Background())
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, e.URL, strings.NewReader(body))
	if err != nil {
		e.T.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+Token)
	go func() {
		<-began
		hangUp()
	}()
	if response, err := Client.Do(r); err == nil {
		e.T.Fatalf("answered %d before the handler did", response.StatusCode)
	}
}

// Trap sends bytes and checks the answer, the reason, and that the handlers saw the request if and only if
// it was delivered.
func (e *Edge) Trap(up *Witness, request string, status int, reason string) *http.Response {
	e.T.Helper()
	before := up.Seen()
	response := e.Raw(request)
	if response.StatusCode != status {
		e.T.Errorf("status %d, want %d", response.StatusCode, status)
	}
	if reason != "" {
		e.WantRecord("reason", reason)
	}
	if saw := up.Seen() > before; saw != (status == 200 && reason == "") {
		e.T.Errorf("status %d, and a handler saw something: %t", status, saw)
	}
	return response
}
