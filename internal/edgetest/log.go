package edgetest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// A Record is one line of the JSON log.
type Record map[string]any

func (r Record) Text(key string) string {
	switch value := r[key].(type) {
	case nil:
		return ""
	case string:
		return value
	default:
		return fmt.Sprint(value)
	}
}

// LogBuffer is a log output that keeps what is written.
type LogBuffer struct {
	Mu   *sync.Mutex
	Text *bytes.Buffer
}

var CurrentLog = LogBuffer{new(sync.Mutex), new(bytes.Buffer)}

func NewLogBuffer() *LogBuffer {
	CurrentLog.Mu.Lock()
	defer CurrentLog.Mu.Unlock()
	CurrentLog.Text.Reset()
	return &CurrentLog
}

func (LogBuffer) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "caddy.logging.writers.test_buffer", New: func() caddy.Module { return new(LogBuffer) }}
}

func (LogBuffer) String() string { return "test_buffer" }

func (LogBuffer) WriterKey() string { return "test_buffer" }

func (LogBuffer) OpenWriter() (io.WriteCloser, error) { return CurrentLog, nil }

func (LogBuffer) UnmarshalCaddyfile(*caddyfile.Dispenser) error { return nil }

func (LogBuffer) Close() error { return nil }

func (b LogBuffer) Write(p []byte) (int, error) {
	if text, _ := PanicAt.Load().(string); text != "" && bytes.Contains(p, []byte(text)) {
		panic("a log with a fault")
	}
	b.Mu.Lock()
	defer b.Mu.Unlock()
	return b.Text.Write(p)
}

// All returns everything logged so far.
func (b LogBuffer) All() string {
	b.Mu.Lock()
	defer b.Mu.Unlock()
	return b.Text.String()
}

// Records returns what green_api's handlers logged.
func (b LogBuffer) Records(t *testing.T) []Record {
	t.Helper()
	var records []Record
	for line := range strings.Lines(b.All()) {
		var r Record
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("log line is no JSON: %q", line)
		}
		if r["logger"] == "http.handlers.green_api" {
			records = append(records, r)
		}
	}
	return records
}
