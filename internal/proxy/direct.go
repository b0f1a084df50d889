package proxy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/headers"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	"go.uber.org/zap"

	"github.com/greenapi-community/caddy-green-api/internal/delivery"
	"github.com/greenapi-community/caddy-green-api/internal/exchange"
)

// direct sends notifications to the upstreams of a reverse_proxy without going through it.
type direct struct {
	rp      *reverseproxy.Handler
	pool    *exchange.Pool
	targets []target // of the static upstreams, in their order
	key     Key      // nil if the policy is not ours
	ops     *headers.HeaderOps
	trusted []netip.Prefix
	secure  bool // over TLS
	loads   *Loads
	log     *zap.Logger

	failing  sync.Map  // of dynamic upstreams: their *reverseproxy.Host, by address
	outgoing sync.Pool // of *outgoing
}

// A target is where an upstream's connections go.
type target struct {
	network, address, host, port string
	err                          error
}

// targetOf parses the address of an upstream. Only that of a dynamic one may be wrong: those of static ones
// were parsed at load.
func targetOf(dial string) target {
	addr, err := caddy.ParseNetworkAddress(dial)
	if err == nil && addr.PortRangeSize() != 1 {
		err = errors.New("want a single port")
	}
	if err != nil {
		return target{err: fmt.Errorf("upstream %s: %w", dial, err)}
	}
	return target{addr.Network, addr.JoinHostPort(0), addr.Host, strconv.Itoa(int(addr.StartPort)), nil}
}

// takes reports whether a request can go directly. An upgrade, or a body that is to be passed on in pieces
// as it arrives, is for reverse_proxy.
func (d *direct) takes(r *http.Request) bool {
	return len(r.Header["Upgrade"]) == 0 && len(r.Header["Incremental"]) == 0
}

// attempt asks one handler.
func (d *direct) attempt(way *Way, deadline time.Time, t *delivery.Try) delivery.Answer {
	var r *http.Request // the attempt's request, for what wants to see one
	var w http.ResponseWriter
	came := way.Base
	if d.ops != nil || d.key == nil || d.rp.DynamicUpstreams != nil {
		ctx, cancel := context.WithDeadline(delivery.WithTry(context.WithoutCancel(way.Base.Context()), t), deadline)
		defer cancel()
		w = &answerWriter{header: make(http.Header)}
		came = way.request(ctx, w)
		r = came.WithContext(came.Context())
	}
	out := d.outgoingFor(came)
	defer d.recycle(out)
	if r != nil {
		r.Header = out.header.Clone()
		out.request.Header = r.Header
	}

	asked := way.ask()
	upstreams, dynamic := d.upstreams(r)
	at := d.choose(t, upstreams, dynamic, r, w)
	if at < 0 {
		asked.end(exchange.Answer{}, nil)
		return delivery.Answer{Result: delivery.NoneFree, Err: delivery.ErrNoneAvailable}
	}
	up := upstreams[at]
	to := d.targetOf(up, at)
	if to.err != nil {
		asked.end(exchange.Answer{}, nil)
		return delivery.Answer{Result: delivery.NotNow, Handler: up.Dial, Err: to.err}
	}
	others := d.loads.begin(up.Dial)
	defer d.loads.end(up.Dial)
	asked.target, asked.requests, asked.limit, asked.fails = to, up.NumRequests()+others, up.MaxRequests, up.Fails()
	if d.secure {
		out.request.Host = to.address
	}
	if d.ops != nil {
		asked.setIn(replacerOf(r.Context()))
		r.Host = out.request.Host
		d.ops.ApplyToRequest(r)
		out.request.Header, out.request.Host = r.Header, r.Host
	}
	if out.request.Host == "" { // HTTP/1.0
		out.request.Host = to.address
	}
	out.request.Network, out.request.Address, out.request.Body = to.network, to.address, way.Body

	answer, err := d.pool.Do(deadline, &out.request)
	asked.end(answer, err)
	if c := d.log.Check(zap.DebugLevel, "asked a handler directly"); c != nil {
		c.Write(zap.String("upstream", up.Dial), zap.Int("status", answer.Status), zap.Duration("duration", asked.duration), zap.Error(err))
	}
	got := classifyDirect(deadline, answer.Status, err) // before the watch, which takes time
	d.watch(way.Base, up.Dial, &answer, err)
	got.Handler = to.address
	if got.Result != delivery.Taken && answer.Line != "" {
		got.Text, got.RetryAfter = delivery.WithoutToken(string(answer.Text), way.Base.Header), delivery.RetryAfter(answer.Header)
	}
	return got
}

// classifyDirect turns the status of an answer, or the fault of an exchange, into an answer of a handler.
func classifyDirect(deadline time.Time, status int, err error) delivery.Answer {
	late := !time.Now().Before(deadline) || errors.Is(err, os.ErrDeadlineExceeded)
	if err == nil {
		return byStatus(status, late)
	}
	if unsent, ok := errors.AsType[*exchange.NotSentError](err); ok {
		return delivery.Answer{Result: delivery.NotNow, Err: fmt.Errorf("%w: %w", delivery.ErrNotConnected, unsent.Err)}
	}
	got := delivery.Answer{Result: delivery.BrokenOff, Err: err}
	if truncated, ok := errors.AsType[*exchange.TruncatedError](err); ok {
		got.Status, got.Err = truncated.Status, errTruncated
	}
	if late {
		got.Result, got.Err = delivery.TimedOut, delivery.ErrTimedOut
	}
	return got
}

// upstreams returns the upstreams of this attempt, and whether they are dynamic. Such ones are new at each.
func (d *direct) upstreams(r *http.Request) (pool reverseproxy.UpstreamPool, dynamic bool) {
	if d.rp.DynamicUpstreams == nil {
		return d.rp.Upstreams, false
	}
	found, err := d.rp.DynamicUpstreams.GetUpstreams(r)
	if err != nil {
		d.log.Error("failed getting dynamic upstreams; falling back to static upstreams", zap.Error(err))
		return d.rp.Upstreams, false
	}
	for _, up := range found {
		most := cmp.Or(up.MaxRequests, d.rp.HealthChecks.Passive.UnhealthyRequestCount)
		pool = append(pool, &reverseproxy.Upstream{Host: d.hostOf(up.Dial), Dial: up.Dial, MaxRequests: most})
	}
	return pool, true
}

// targetOf returns where to find the upstream at an index.
func (d *direct) targetOf(up *reverseproxy.Upstream, at int) target {
	if at < len(d.targets) && d.rp.Upstreams[at] == up {
		return d.targets[at]
	}
	return targetOf(up.Dial)
}

// choose lets the policy choose an upstream and returns its index, -1 for none.
func (d *direct) choose(t *delivery.Try, pool reverseproxy.UpstreamPool, dynamic bool, r *http.Request, w http.ResponseWriter) int {
	if d.key == nil {
		up := d.rp.LoadBalancing.SelectionPolicy.Select(pool, r, w)
		for i := range pool {
			if pool[i] == up {
				return i
			}
		}
		return -1
	}
	key := d.key(t.Case)
	return t.Choose(
		func(to []delivery.Seat) []delivery.Seat {
			to = appendSeats(to, pool, d.loads)
			if dynamic { // what its Fails mean is not known to such an upstream
				for i, up := range pool {
					to[i].Healthy = up.Fails() < d.rp.HealthChecks.Passive.MaxFails
				}
			}
			return to
		},
		func(open []delivery.Seat) int { return pickByKey(open, key) },
	)
}

// hostOf returns the state of a dynamic upstream. It is Caddy's own if the upstream has failed recently.
func (d *direct) hostOf(dial string) *reverseproxy.Host {
	if host, failing := d.failing.Load(dial); failing {
		return host.(*reverseproxy.Host)
	}
	return new(reverseproxy.Host)
}

// watch tells reverse_proxy of what its passive health checks count: of an answer, even one that broke off in its
// body, only what its header shows.
func (d *direct) watch(base *http.Request, upstream string, answer *exchange.Answer, err error) {
	if answer.Line == "" {
		d.strike(base, upstream, err)
		return
	}
	passive := d.rp.HealthChecks.Passive
	for _, bad := range passive.UnhealthyStatus {
		if caddyhttp.StatusCodeMatches(answer.Status, bad) {
			d.strike(base, upstream, fmt.Errorf("status %d", answer.Status))
		}
	}
	if limit := time.Duration(passive.UnhealthyLatency); limit > 0 && answer.Latency >= limit {
		d.strike(base, upstream, fmt.Errorf("latency %s", answer.Latency))
	}
}
