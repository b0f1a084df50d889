// Package backlog stands between the queue and the rest of the edge: it makes a record of a case and a case of a
// record, and tells the operator when the queue falls behind.
package backlog

import (
	"maps"
	"net/http"
	"strings"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/notification"
	"github.com/greenapi-community/caddy-green-api/queue"
)

// RecordOf returns what the queue keeps of a notification: all that a handler may see, but no secret.
func RecordOf(block string, c *outcome.Case) *queue.Record {
	return &queue.Record{
		Block: block, Received: c.Started, Instance: c.N.Instance, Chat: c.N.Chat, Type: c.N.Type, Message: c.N.Message, ID: c.N.ID,
		Unadmitted: !c.Admitted, Sent: c.N.Timestamp, Kind: c.Kind, Via: c.Via, Client: c.Client, Remote: c.Remote, TLS: c.TLS, Host: c.Host, URI: c.URI,
		Header: keptHeader(c.Header), Body: c.Body,
	}
}

// maxHeader is how many bytes of a header the queue keeps. GREEN-API sends some hundred.
const maxHeader = 8 << 10

// keptHeader returns a header without secrets and without fields that are set anew. If it is very long, only what
// describes the body is left.
func keptHeader(header http.Header) map[string][]string {
	kept := make(map[string][]string, len(header))
	size := 0
	for name, values := range header {
		if isSecret(name) || strings.HasPrefix(name, "X-Green-Api-") {
			continue
		}
		kept[name] = values
		for _, value := range values {
			size += len(name) + len(value)
		}
	}
	if size > maxHeader {
		maps.DeleteFunc(kept, func(name string, _ []string) bool { return !strings.HasPrefix(name, "Content-") })
	}
	return kept
}

func isSecret(field string) bool {
	switch field {
	case "Authorization", "Proxy-Authorization", "Cookie":
		return true
	}
	return false
}

// CaseOf returns the case of a notification from the queue.
func CaseOf(d queue.Delivery) outcome.Case {
	return outcome.Case{
		Via: d.Via, Client: d.Client, Remote: d.Remote, TLS: d.TLS, Host: d.Host, URI: d.URI, Header: d.Header, Started: d.Received,
		Admitted: !d.Unadmitted, Body: d.Body, Kind: d.Kind, Round: max(1, d.Round),
		N:     &notification.Notification{Type: d.Type, Message: d.Message, Instance: d.Instance, Chat: d.Chat, ID: d.ID, Timestamp: d.Sent},
		Trail: trailOf(d.Answers),
	}
}

// What is remembered of a round: a hundred thousand lanes may wait.
const (
	maxAnswers = 3
	maxAnswer  = 256 // bytes of its text
)

// AnswersOf returns what the queue remembers of a round that failed.
func AnswersOf(t *outcome.Trail) (answers []queue.Answer) {
	for _, said := range t.Answers[max(0, len(t.Answers)-maxAnswers):] {
		answers = append(answers, queue.Answer{
			Handler: said.Handler, Status: said.Status, Text: strings.Clone(outcome.ClipTo(said.Text, maxAnswer)), Error: strings.Clone(outcome.ClipTo(said.Error, maxAnswer)),
		})
	}
	return answers
}

// trailOf returns what is known of earlier rounds.
func trailOf(answers []queue.Answer) (t outcome.Trail) {
	for _, said := range answers {
		t.Answers = append(t.Answers, outcome.Attempt{Handler: said.Handler, Status: said.Status, Text: said.Text, Error: said.Error, Times: 1})
	}
	return t
}
