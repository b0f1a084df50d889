package command

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/sender"
)

// progress shows how far send has got, in one line on a terminal. Elsewhere it prints only problems.
type progress struct {
	out      io.Writer
	terminal bool
	total    int
	pause    time.Duration
	asIs     bool // bodies are files, and each may name another instance

	mu                         sync.Mutex
	sent, acknowledged, resent int
	queued                     int // of the acknowledged, still in the edge's queue
	trouble                    string
	troubles                   int

	stop context.CancelFunc
	done chan struct{}
}

// mostTroubles is how many failed attempts get their own line.
const mostTroubles = 20

func newProgress(out io.Writer, total int, pause time.Duration) *progress {
	p := &progress{out: out, total: total, pause: pause, done: make(chan struct{})}
	_, p.terminal = terminalOf(out)
	ctx, stop := context.WithCancel(context.Background())
	p.stop = stop
	go func() {
		defer close(p.done)
		ticker := time.NewTicker(200 * time.Millisecond)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				p.show()
			case <-ctx.Done():
				p.show()
				return
			}
		}
	}()
	return p
}

// terminalOf returns out, and reports whether it is a terminal.
func terminalOf(out io.Writer) (io.Writer, bool) {
	file, isFile := out.(*os.File)
	return out, isFile && term.IsTerminal(int(file.Fd()))
}

func (p *progress) attempt(a sender.Attempt) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if a.Number == 1 {
		p.sent++
	} else {
		p.resent++
	}
	if a.Acknowledged() {
		p.acknowledged++
		return
	}
	what := strconv.Itoa(a.Status)
	if a.Err != nil {
		what = a.Err.Error()
	}
	if a.Again {
		what += fmt.Sprintf(", again in %s", p.pause)
	} else {
		what += ", given up"
	}
	p.trouble = what + ": " + a.Notification.Name
	instance := a.Instance
	if p.asIs {
		instance = instanceIn(a.Notification.Body)
	}
	if instance != "" {
		p.trouble += " of " + instance
	}
	p.trouble = outcome.Printable(p.trouble)
	p.troubles++
	if p.terminal || p.troubles > mostTroubles {
		return
	}
	fmt.Fprintln(p.out, p.trouble)
	if p.troubles == mostTroubles {
		fmt.Fprintln(p.out, "further ones are only counted")
	}
}

// queue notes how many notifications the edge still has in its queue.
func (p *progress) queue(left int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.queued = left
}

func (p *progress) show() {
	if !p.terminal {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	line := fmt.Sprintf("%d of %d sent, %d acknowledged, %d re-sent", p.sent, p.total, p.acknowledged, p.resent)
	if p.queued > 0 {
		line += fmt.Sprintf(", %d in the queue", p.queued)
	}
	if p.trouble != "" {
		line += "; last failure: " + p.trouble
	}
	width := 79
	if file, ok := p.out.(*os.File); ok {
		if columns, _, err := term.GetSize(int(file.Fd())); err == nil && columns > 1 {
			width = columns - 1
		}
	}
	if runes := []rune(line); len(runes) > width {
		line = string(runes[:width])
	}
	fmt.Fprintf(p.out, "\r\x1b[K%s", line)
}

func (p *progress) close() {
	p.stop()
	<-p.done
	if p.terminal {
		fmt.Fprintln(p.out)
	}
}
