package api

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/greenapi-community/caddy-green-api/internal/live"
	"github.com/greenapi-community/caddy-green-api/internal/outcome"
)

// Live is what ended lately.
type Live struct {
	Now     time.Time `json:"now"`
	Waiting int       `json:"waiting"` // for a handler
	live.View
}

// Streams counts those who watch live. It outlives a config.
type Streams struct{ open atomic.Int32 }

const (
	maxStreams   = 8
	tick         = 250 * time.Millisecond
	rowsPerTick  = 50
	heartbeat    = 15 * time.Second
	writeTimeout = 5 * time.Second // for a client that no longer reads
)

// live shows what ends, as it ends: as server-sent events until the config is replaced, or once if JSON is what the
// client accepts. The events are
//
//	hello  {version, now, trend}           once
//	gap    {from, to}                      rows that are no longer kept
//	rows   {rows, shown, of}               what is new: all that tells of something wrong comes first
//	tick   {now, waiting, seq, counts, p50_ms, p99_ms}   four times a second if something has changed, and every 15 seconds
//	end    {reason}                        reload: connect again; exit: the process ends
//
// The id of an event is where to go on from, with Last-Event-ID, or since for JSON.
func (e *Edge) live(w http.ResponseWriter, r *http.Request) error {
	since := int64(live.Newest)
	if text := cmp.Or(r.Header.Get("Last-Event-ID"), r.URL.Query().Get("since")); text != "" {
		var err error
		if since, err = strconv.ParseInt(text, 10, 64); err != nil || since < 0 {
			return badRequest(fmt.Errorf("since: invalid number %q; want the seq of an earlier answer, or 0 for the newest", outcome.Clip(text)))
		}
	}
	if !accepts(r, "text/event-stream") {
		w.Header().Set("Content-Type", "application/json")
		return json.NewEncoder(outcome.JSONWriter{To: w}).Encode(e.look(since, 10*rowsPerTick))
	}
	if e.Streams.open.Add(1) > maxStreams {
		e.Streams.open.Add(-1)
		return &Error{http.StatusServiceUnavailable, fmt.Errorf("%d already watch; want no more than that", maxStreams)}
	}
	defer e.Streams.open.Add(-1)
	return e.stream(w, r, since)
}

// accepts reports whether a request wants a media type by its name.
func accepts(r *http.Request, want string) bool {
	for _, line := range r.Header.Values("Accept") {
		for part := range strings.SplitSeq(line, ",") {
			if got, _, err := mime.ParseMediaType(part); err == nil && got == want {
				return true
			}
		}
	}
	return false
}

func (e *Edge) look(since int64, most int) Live {
	return Live{time.Now(), e.Waiting(), e.Feed.Since(since, most)}
}

func (e *Edge) stream(w http.ResponseWriter, r *http.Request, since int64) error {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Accel-Buffering", "no") // for an nginx in between
	out := events{w, http.NewResponseController(w)}
	now := time.Now()
	trend := e.Feed.Trend(now)
	if out.send("hello", since, map[string]any{"version": Version(), "now": now, "trend": trend}) != nil {
		return nil // the client is gone, which is no error of the edge
	}
	clock := time.NewTicker(tick)
	defer clock.Stop()
	for last, said := (Live{}), now; ; {
		seen := e.look(since, rowsPerTick)
		if seen.Seq != last.Seq || seen.Waiting != last.Waiting || seen.Now.Sub(said) >= heartbeat {
			if err := out.news(seen, e.Feed.Trend(seen.Now)); err != nil {
				return nil
			}
			last, since, said = seen, seen.Seq, seen.Now
		}
		select {
		case <-clock.C:
		case <-r.Context().Done():
			return nil
		case <-e.Ending:
			why := "reload"
			if e.Exiting() {
				why = "exit"
			}
			_ = out.send("end", since, map[string]string{"reason": why})
			return nil
		}
	}
}

// events writes server-sent events.
type events struct {
	w  http.ResponseWriter
	rc *http.ResponseController
}

func (out events) news(seen Live, trend live.Trend) error {
	var err error
	if seen.Gap != nil {
		err = out.send("gap", seen.Gap.To, seen.Gap)
	}
	if len(seen.Rows) > 0 {
		err = errors.Join(err, out.send("rows", seen.Seq, map[string]any{"rows": seen.Rows, "shown": len(seen.Rows), "of": seen.Of}))
	}
	return errors.Join(err, out.send("tick", seen.Seq, map[string]any{
		"now": seen.Now, "waiting": seen.Waiting, "seq": seen.Seq, "counts": seen.Counts, "p50_ms": trend.P50, "p99_ms": trend.P99,
	}))
}

// send sends an event. id is where a client goes on from that gets no more.
func (out events) send(name string, id int64, data any) error {
	text, err := json.Marshal(data)
	if err != nil {
		return err
	}
	return out.write(fmt.Sprintf("event: %s\nid: %d\ndata: %s\n\n", name, id, outcome.PrintableJSON(text)))
}

func (out events) write(text string) error {
	_ = out.rc.SetWriteDeadline(time.Now().Add(writeTimeout))   // not every writer has one
	defer func() { _ = out.rc.SetWriteDeadline(time.Time{}) }() // until the next one: HTTP/2 ends the answer at it
	if _, err := out.w.Write([]byte(text)); err != nil {
		return err
	}
	return out.rc.Flush()
}
