package proxy

import (
	"net"
	"net/http"
	"net/netip"
	"net/textproto"
	"slices"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"golang.org/x/net/http/httpguts"

	"github.com/greenapi-community/caddy-green-api/internal/exchange"
)

// outgoing is a request to a handler. Its header is the one that reverse_proxy would send.
type outgoing struct {
	header  http.Header // its values may be those of the request as it arrived
	request exchange.Request
	values  [6][1]string // for one call of set each
	used    int
}

// isHopByHop reports whether a field concerns one connection, as reverse_proxy knows them, or does not fit a
// body that was read whole.
func isHopByHop(name string) bool {
	switch name {
	case "Alt-Svc", "Connection", "Proxy-Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization",
		"Te", "Trailer", "Transfer-Encoding", "Upgrade", "Expect":
		return true
	}
	return false
}

// outgoingFor returns the request to a handler for the request as it arrived, without its target and body.
// Caddy's prepareRequest does the same.
func (d *direct) outgoingFor(r *http.Request) *outgoing {
	o, ok := d.outgoing.Get().(*outgoing)
	if !ok {
		o = &outgoing{header: make(http.Header, 16)}
	}
	for name, values := range r.Header {
		if !isHopByHop(name) {
			o.header[name] = values
		}
	}
	if _, there := r.Header["User-Agent"]; !there {
		o.set("User-Agent", "") // none, instead of net/http's
	}
	trailers := httpguts.HeaderValuesContainsToken(r.Header["Te"], "trailers")
	for _, connection := range r.Header["Connection"] {
		for name := range strings.SplitSeq(connection, ",") {
			name = textproto.TrimString(name)
			o.header.Del(name)
			trailers = trailers && !strings.EqualFold(name, "Te")
		}
	}
	if trailers {
		o.set("Te", "trailers")
	}
	o.forwarded(r, d.trusts(r))
	via := "1.1 Caddy"
	if r.ProtoMajor != 1 || r.ProtoMinor != 1 {
		via = strconv.Itoa(r.ProtoMajor) + "." + strconv.Itoa(r.ProtoMinor) + " Caddy"
	}
	if before := o.header["Via"]; len(before) > 0 {
		o.header["Via"] = append(slices.Clip(before), via)
	} else {
		o.set("Via", via)
	}
	url := *r.URL
	url.Scheme, url.Host = "", ""
	o.request = exchange.Request{Method: r.Method, URI: url.RequestURI(), Host: r.Host, Header: o.header}
	return o
}

// set sets a field without an allocation. A field without values is one that must not be sent.
func (o *outgoing) set(name, value string) {
	if values, there := o.header[name]; there && values == nil {
		return
	}
	place := &o.values[o.used]
	o.used++
	place[0] = value
	o.header[name] = place[:]
}

func (d *direct) recycle(o *outgoing) {
	clear(o.header)
	*o = outgoing{header: o.header}
	d.outgoing.Put(o)
}

// trusts reports whether the sender is a proxy whose X-Forwarded fields can be believed.
func (d *direct) trusts(r *http.Request) bool {
	if trusted, _ := caddyhttp.GetVar(r.Context(), caddyhttp.TrustedProxyVarKey).(bool); trusted {
		return true
	}
	if len(d.trusted) == 0 {
		return false
	}
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return false
	}
	host, _, _ = strings.Cut(host, "%") // the zone
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return false
	}
	for _, prefix := range d.trusted {
		if prefix.Contains(addr) {
			return true
		}
	}
	return false
}

// forwarded sets the X-Forwarded fields. Those of a sender that is not trusted are replaced.
func (o *outgoing) forwarded(r *http.Request, trusted bool) {
	const forName, protoName, hostName = "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host"
	client := ""
	if r.RemoteAddr != "@" { // a unix socket: there is no address
		host, _, err := net.SplitHostPort(r.RemoteAddr)
		if err != nil {
			trusted = false
		}
		client, _, _ = strings.Cut(host, "%")
	}
	if client == "" && !trusted {
		delete(o.header, forName)
		delete(o.header, protoName)
		delete(o.header, hostName)
		return
	}
	before := ""
	if trusted {
		before = strings.Join(o.header[forName], ", ")
	}
	switch {
	case before == "" && client != "":
		o.set(forName, client)
	case before != "" && client != "":
		o.set(forName, before+", "+client)
	case before != "":
		o.set(forName, before)
	}
	proto := "http"
	if r.TLS != nil {
		proto = "https"
	}
	o.set(protoName, o.before(protoName, trusted, proto))
	o.set(hostName, o.before(hostName, trusted, r.Host))
}

// before returns the last value of a field if the sender is trusted and has set it, or else another.
func (o *outgoing) before(name string, trusted bool, otherwise string) string {
	if values := o.header[name]; trusted && len(values) > 0 && values[len(values)-1] != "" {
		return values[len(values)-1]
	}
	return otherwise
}
