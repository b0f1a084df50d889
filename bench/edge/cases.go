package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/greenapi-community/caddy-green-api/bench/load"
)

// benchCase is one kind of load, with its setting.
type benchCase struct {
	name, about string
	edges       []string
	status      int
	connections int // 0 for the flag's value
	rated       bool

	size              int  // of the body
	wrongToken        bool // the request has a wrong token
	hangsUp           bool // the sender hangs up after each answer
	broken            bool // the body is broken
	prefixes, tokens  int  // in the config, the right one last
	nothingIsAllowed  bool
	drop, logged, own bool
}

const textSize = 470

var (
	everyEdge = []string{"green_api", "other", "caddy", "nginx", "njs", "haproxy"}
	ours      = []string{"green_api", "other"}
	withCaddy = []string{"green_api", "other", "caddy"}
)

var cases = []benchCase{
	{name: "text", about: "a text message of 470 bytes, delivered", edges: append([]string{"none"}, everyEdge...), rated: true},
	{name: "text256", about: "the same over 256 connections", edges: withCaddy, connections: 256},
	{name: "text1000", about: "the same over 1,000 connections", edges: withCaddy, connections: 1000},
	{name: "logged", about: "a text message, with a record of each: ours the one of a notification, the others' of an access", edges: everyEdge, logged: true},
	{name: "5KB", about: "5 KB, delivered", edges: everyEdge, size: 5_000},
	{name: "50KB", about: "50 KB, delivered", edges: everyEdge, size: 50_000},
	{name: "1MB", about: "1 MB, delivered", edges: everyEdge, size: 1_000_000},
	{name: "dropped", about: "a type that is dropped; respond is a plain Caddy that answers 200 and looks at nothing", edges: []string{"green_api", "other", "respond"}, drop: true},
	{name: "address", about: "refused for its address, without a right token, over a connection of its own, as scanners do", edges: everyEdge, status: load.AnyRefusal, nothingIsAllowed: true, wrongToken: true, hangsUp: true},
	{name: "token", about: "refused for its token", edges: everyEdge, status: load.AnyRefusal, wrongToken: true},
	{name: "prefixes", about: "10,000 prefixes in the config, delivered", edges: everyEdge, prefixes: 10_000},
	{name: "instance", about: "a token of one instance, delivered", edges: everyEdge, own: true},
	{name: "instances", about: "tokens of 10,000 instances, delivered", edges: everyEdge, tokens: 10_000, own: true},
	{name: "quarantine1", about: "a broken notification, on disk before it is answered", edges: ours, broken: true, connections: 1},
	{name: "quarantine64", about: "the same", edges: ours, broken: true, connections: 64},
}

func init() {
	for i := range cases {
		c := &cases[i]
		c.status, c.size = or(c.status, 200), or(c.size, textSize)
		c.prefixes, c.tokens = or(c.prefixes, 1), or(c.tokens, 1)
	}
}

func or(value, byDefault int) int {
	if value == 0 {
		return byDefault
	}
	return value
}

// setting returns the config's setting. The request matches the last entry of each list, which is the worst
// case for a search from the start.
func (c *benchCase) setting() setting {
	s := setting{PerInstance: c.own, Drop: c.drop, Logged: c.logged}
	for i := range c.prefixes - 1 {
		s.Prefixes = append(s.Prefixes, fmt.Sprintf("10.%d.%d.0/24", i/256, i%256))
	}
	last := "127.0.0.1/32"
	if c.nothingIsAllowed {
		last = "203.0.113.7/32"
	}
	s.Prefixes = append(s.Prefixes, last)
	for i := range c.tokens {
		s.Tokens = append(s.Tokens, token(i))
	}
	return s
}

func token(i int) string { return fmt.Sprintf("bench-token-%06d", i) }

func instance(i int) string { return strconv.Itoa(1101000001 + i) }

// requests returns the bytes to send, one request per connection.
func (c *benchCase) requests(address string, n int) [][]byte {
	token := token(c.tokens - 1)
	if c.wrongToken {
		token = "wrong-" + token
	}
	connection := ""
	if c.hangsUp {
		connection = "Connection: close\r\n"
	}
	requests := make([][]byte, n)
	for i := range requests {
		body := c.body(i)
		requests[i] = fmt.Appendf(nil, "POST /green-api/webhook HTTP/1.1\r\nHost: %s\r\nUser-Agent: bench\r\n"+
			"Content-Type: application/json; charset=utf-8\r\nAuthorization: Bearer %s\r\n%sContent-Length: %d\r\n\r\n%s",
			address, token, connection, len(body), body)
	}
	return requests
}

// body returns a text message of the case's size.
func (c *benchCase) body(i int) string {
	const before = `{"typeWebhook":"incomingMessageReceived","instanceData":{"idInstance":%s,"wid":"79001234567@c.us",` +
		`"typeInstance":"whatsapp"},"timestamp":1790000000,"idMessage":"3EB0C767D097B7C%05d","senderData":{"chatId":"79001234568@c.us",` +
		`"sender":"79001234568@c.us","chatName":"Test Sender","senderName":"Test Sender","senderContactName":""},` +
		`"messageData":{"typeMessage":"textMessage","textMessageData":{"textMessage":"`
	const after = `"}}}`
	start := fmt.Sprintf(before, instance(c.tokens-1), i)
	const text = "a message of average length, as people write them, "
	missing := c.size - len(start) - len(after)
	body := start + strings.Repeat(text, missing/len(text)+1)[:missing] + after
	if c.broken {
		return body[:len(body)-1]
	}
	return body
}
