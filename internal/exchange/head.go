package exchange

import (
	"bytes"
	"errors"
	"net/http"
	"net/textproto"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// isOwn reports whether a field is written from the request itself, or describes a connection and not the request.
func isOwn(name string) bool {
	switch name {
	case "Host", "User-Agent", "Content-Length", "Transfer-Encoding", "Trailer":
		return true
	}
	return false
}

// acceptEncoding is what net/http's Transport adds.
const acceptEncoding = "Accept-Encoding"

// writeHead writes a request's header, with the blank line after it, byte for byte as net/http's Transport writes
// it: a handler sees no difference.
func writeHead(to *bytes.Buffer, r *Request, noGzip bool) error {
	if !httpguts.ValidHeaderFieldName(r.Method) { // both are tokens
		return errors.New("invalid method")
	}
	if strings.ContainsFunc(r.URI, func(c rune) bool { return c <= ' ' || c == 0x7f }) || r.URI == "" {
		return errors.New("invalid URI: it is empty, or has a control character or a space in it")
	}
	var room [32]string
	names := room[:0]
	for name, values := range r.Header {
		if !httpguts.ValidHeaderFieldName(name) {
			return errors.New("invalid name of a header field")
		}
		for _, value := range values {
			if !httpguts.ValidHeaderFieldValue(value) {
				return errors.New("invalid value of the header field " + name) // not the value: it may be a token
			}
		}
		if !isOwn(name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	host, err := httpguts.PunycodeHostPort(r.Host)
	if err != nil {
		return errors.New("invalid host")
	}
	if !httpguts.ValidHostHeader(host) {
		host = ""
	}

	to.WriteString(r.Method)
	to.WriteByte(' ')
	to.WriteString(r.URI)
	to.WriteString(" HTTP/1.1\r\nHost: ")
	to.WriteString(withoutZone(host))
	to.WriteString("\r\n")
	agent := "Go-http-client/1.1"
	if values, there := r.Header["User-Agent"]; there {
		agent = ""
		if len(values) > 0 {
			agent = strings.Trim(values[0], " \t")
		}
	}
	if agent != "" {
		to.WriteString("User-Agent: ")
		to.WriteString(agent)
		to.WriteString("\r\n")
	}
	if len(r.Body) > 0 || r.Method == http.MethodPost || r.Method == http.MethodPut || r.Method == http.MethodPatch {
		to.WriteString("Content-Length: ")
		to.Write(strconv.AppendInt(to.AvailableBuffer(), int64(len(r.Body)), 10))
		to.WriteString("\r\n")
	}
	for _, name := range names {
		for _, value := range r.Header[name] {
			to.WriteString(name)
			to.WriteString(": ")
			to.WriteString(textproto.TrimString(value))
			to.WriteString("\r\n")
		}
	}
	if asksForGzip(r, noGzip) {
		to.WriteString("Accept-Encoding: gzip\r\n")
	}
	to.WriteString("\r\n")
	return nil
}

// asksForGzip reports whether a field is added that asks for a compressed answer.
func asksForGzip(r *Request, noGzip bool) bool {
	return !noGzip && r.Header.Get(acceptEncoding) == "" && r.Header.Get("Range") == "" && r.Method != http.MethodHead
}

// withoutZone returns a host without the zone of an IPv6 address, which means something on this machine only.
func withoutZone(host string) string {
	if !strings.HasPrefix(host, "[") {
		return host
	}
	end := strings.LastIndexByte(host, ']')
	if end < 0 {
		return host
	}
	zone := strings.LastIndexByte(host[:end], '%')
	if zone < 0 {
		return host
	}
	return host[:zone] + host[end:]
}
