package standin

import (
	"maps"
	"time"

	"github.com/greenapi-community/caddy-green-api/sender"
)

const (
	webhookURL      = "webhookUrl"
	webhookURLToken = "webhookUrlToken" //nolint:gosec // a name
)

// switches are the settings of a new instance that are "yes" or "no".
var switches = []string{
	"incomingWebhook", "outgoingWebhook", "outgoingMessageWebhook", "outgoingAPIMessageWebhook", "stateWebhook", "statusInstanceWebhook",
	"deviceWebhook", "pollMessageWebhook", "incomingBlockWebhook", "incomingCallWebhook", "outgoingCallWebhook", "editedMessageWebhook",
	"deletedMessageWebhook", "incomingMessageStatusWebhook", "catalogWebhook", "markIncomingMessagesReaded", "markIncomingMessagesReadedOnReply", "keepOnlineStatus",
}

// instance is guarded by the Server's lock.
type instance struct {
	id, token string
	settings  map[string]any   // in effect
	pending   []map[string]any // changes that are not in effect yet
	queue     []queued
	deleted   [][]byte
	sending   bool // to a webhookUrl

	polling, mostPolling int
	recent               map[string][]time.Time // calls in the last second, by method
	changed              chan struct{}          // closed at the next change of queue or settings
}

// queued is a notification in the queue.
type queued struct {
	receipt  int64
	body     []byte
	received bool // by receiveNotification, at least once
}

func newInstance(id, token string) *instance {
	settings := map[string]any{
		"wid": "79001234567@c.us", "typeInstance": "whatsapp", "delaySendMessagesMilliseconds": 500, webhookURL: "", webhookURLToken: "",
	}
	for _, name := range switches {
		settings[name] = "no"
	}
	return &instance{id: id, token: token, settings: settings, recent: make(map[string][]time.Time), changed: make(chan struct{})}
}

// text returns a setting that is in effect.
func (i *instance) text(name string) string {
	text, _ := i.settings[name].(string)
	return text
}

// wake wakes everything that waits for a change.
func (i *instance) wake() {
	close(i.changed)
	i.changed = make(chan struct{})
}

// change restarts the instance with changed settings. They take effect after five minutes.
func (s *Server) change(i *instance, wanted map[string]any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i.pending = append(i.pending, wanted)
	time.AfterFunc(s.scaled(settingsDelay), func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		maps.Copy(i.settings, i.pending[0])
		i.pending = i.pending[1:]
		if i.text(webhookURL) != "" && !i.sending && s.ctx.Err() == nil {
			i.sending = true
			s.senders.Go(func() { s.send(i) })
		}
		i.wake()
	})
}

// send sends the queue as long as there is a webhookUrl. It stops between two attempts, so nothing that a
// webhook answered 200 is left in the queue.
func (s *Server) send(i *instance) {
	for {
		s.mu.Lock()
		to := sender.Options{URL: i.text(webhookURL), Token: i.text(webhookURLToken), Scale: s.options.Scale, Attempts: 1, Transport: s.options.Webhooks}
		if to.URL == "" || s.ctx.Err() != nil {
			i.sending = false
			i.wake()
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
		s.sendTo(i, to)
	}
}

// sendTo sends the queue until the instance's webhookUrl or its token change. To the sender each attempt is
// a separate notification; the queue here hands out the same one until it is acknowledged.
func (s *Server) sendTo(i *instance, to sender.Options) {
	var inHand int64
	var next time.Time // nothing is sent before then
	to.OnAttempt = func(a sender.Attempt) {
		if !a.Acknowledged() {
			next = time.Now().Add(s.scaled(sender.DefaultPause))
			return
		}
		s.remove(i, func(q queued) bool { return q.receipt == inHand })
	}
	queue := sender.Queue{Instance: i.id, Notifications: func(yield func(sender.Notification) bool) {
		for {
			head := s.toSend(i, to, next)
			if head == nil {
				return
			}
			inHand = head.receipt
			if !yield(sender.Notification{Body: head.body}) {
				return
			}
		}
	}}
	if _, err := sender.Run(s.ctx, to, queue); err != nil {
		panic(err) // the URL was checked
	}
}

// toSend waits for the time and for a notification, and returns the notification, or nil if it must not be
// sent there any more.
func (s *Server) toSend(i *instance, to sender.Options, next time.Time) *queued {
	timer := time.NewTimer(time.Until(next))
	defer timer.Stop()
	due := timer.C
	for {
		s.mu.Lock()
		same := i.text(webhookURL) == to.URL && i.text(webhookURLToken) == to.Token
		changed := i.changed
		var head *queued
		if due == nil && len(i.queue) > 0 {
			copied := i.queue[0]
			head = &copied
		}
		s.mu.Unlock()
		switch {
		case !same || s.ctx.Err() != nil:
			return nil
		case head != nil:
			return head
		}
		select {
		case <-due:
			due = nil
		case <-changed:
		case <-s.ctx.Done():
		}
	}
}
