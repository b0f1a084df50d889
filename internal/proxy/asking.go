package proxy

import (
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/greenapi-community/caddy-green-api/internal/exchange"
)

// asking is what is known of a direct attempt. Its placeholders have the names and values of reverse_proxy's.
type asking struct {
	target                 // of the chosen upstream; without an address if there is none
	stage                  stage
	requests, limit, fails int
	began                  time.Time
	duration               time.Duration
	answer                 exchange.Answer // its Line is "" before it is there, and without one
}

// A stage is how far an attempt is.
type stage int

const (
	notDirect stage = iota // it goes through reverse_proxy, or there is none yet
	begun
	brokenOff // in the body of its answer
	over
)

// chosen are the placeholders that are known once an upstream is chosen.
var chosenPlaceholders = [...]string{
	"address", "hostport", "host", "port", "requests", "max_requests", "fails",
}

const upstreamPrefix = "http.reverse_proxy.upstream."

// setIn sets what is known before the upstream is asked.
func (a *asking) setIn(repl *caddy.Replacer) {
	for _, name := range chosenPlaceholders {
		value, _ := a.lookUp(upstreamPrefix + name)
		repl.Set(upstreamPrefix+name, value)
	}
}

// ask begins a direct attempt. A transport that is still dialing for an attempt before may look placeholders up.
func (o *onward) ask() *asking {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.asked = asking{stage: begun, began: time.Now()}
	return &o.asked
}

// notAsked begins an attempt that is not direct.
func (o *onward) notAsked() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.asked = asking{}
}

// end records how the attempt ended.
func (a *asking) end(answer exchange.Answer, err error) {
	a.answer, a.duration, a.stage = answer, time.Since(a.began), over
	if answer.Line != "" && err != nil {
		a.stage = brokenOff
	}
}

// lookUp returns the value of a placeholder, which may not be known yet.
func (a *asking) lookUp(key string) (any, bool) {
	name := strings.TrimPrefix(key, "http.reverse_proxy.")
	if a.address == "" && strings.HasPrefix(name, "upstream.") {
		return nil, false
	}
	switch name {
	case "upstream.address":
		return caddy.JoinNetworkAddress(a.network, a.host, a.port), true
	case "upstream.hostport":
		return a.address, true
	case "upstream.host":
		return a.host, true
	case "upstream.port":
		return a.port, true
	case "upstream.requests":
		return a.requests, true
	case "upstream.max_requests":
		return a.limit, true
	case "upstream.fails":
		return a.fails, true
	case "duration":
		return a.duration, a.stage > begun
	case "duration_ms":
		return a.duration.Seconds() * 1e3, a.stage > begun
	case "retries":
		return 0, a.stage == over
	default:
		if a.answer.Line == "" {
			return nil, false
		}
		return a.lookUpAnswer(name)
	}
}

func (a *asking) lookUpAnswer(name string) (any, bool) {
	switch name {
	case "upstream.latency":
		return a.answer.Latency, true
	case "upstream.latency_ms":
		return a.answer.Latency.Seconds() * 1e3, true
	case "upstream.duration":
		return a.duration, a.stage == over
	case "upstream.duration_ms":
		return a.duration.Seconds() * 1e3, a.stage == over
	case "status_code":
		return a.answer.Status, true
	case "status_text":
		return a.answer.Line, true
	}
	if field, found := strings.CutPrefix(name, "header."); found {
		if values, there := a.answer.Header[field]; there {
			return strings.Join(values, ","), true
		}
	}
	return nil, false
}
