package standin

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// call is a request of a method.
type call struct {
	w                 http.ResponseWriter
	r                 *http.Request
	id, method, token string
	rest              string // what follows the token
	instance          *instance
}

// methods are the ones that the stand-in implements.
var methods = map[string]struct {
	verb   string
	rate   int // calls per second for an instance
	answer func(s *Server, c *call)
}{
	"receiveNotification": {http.MethodGet, queueRate, (*Server).receiveNotification},
	"deleteNotification":  {http.MethodDelete, queueRate, (*Server).deleteNotification},
	"getSettings":         {http.MethodGet, otherRate, (*Server).getSettings},
	"setSettings":         {http.MethodPost, otherRate, (*Server).setSettings},
	"getStateInstance":    {http.MethodGet, otherRate, (*Server).getStateInstance},
	"getWebhooksCount":    {http.MethodGet, otherRate, (*Server).getWebhooksCount},
	"sendMessage":         {http.MethodPost, messageRate, (*Server).sendMessage},
}

// parse parses a request's path: /waInstance{id}/{method}/{token}. If the path is invalid, parse answers
// the request and returns nil.
func parse(w http.ResponseWriter, r *http.Request) *call {
	c := &call{w: w, r: r}
	path := strings.TrimPrefix(r.URL.EscapedPath(), "/v3") // an optional prefix of MAX
	path, isInstance := strings.CutPrefix(path, "/waInstance")
	parts := strings.SplitN(path, "/", 4)
	if !isInstance || len(parts) < 2 {
		c.forbid()
		return nil
	}
	c.id, c.method = parts[0], parts[1]
	if len(parts) > 2 {
		c.token, _ = url.PathUnescape(parts[2]) // it was parsed
	}
	if len(parts) > 3 {
		c.rest = parts[3]
	}
	do, known := methods[c.method]
	switch {
	case !known, c.id == "":
		c.forbid()
	case strings.Trim(c.id, "0123456789") != "":
		c.refuse("Parameter idInstance not an integer")
	case do.verb != r.Method:
		http.Error(w, "Cannot "+r.Method, http.StatusNotFound)
	case c.rest != "" && c.method != "deleteNotification":
		c.forbid()
	default:
		return c
	}
	return nil
}

// forbid answers a wrong ID or path.
func (c *call) forbid() {
	c.w.Header().Set("Content-Type", "text/html")
	c.w.WriteHeader(http.StatusForbidden)
	_, _ = io.WriteString(c.w, "<html>\r\n<head><title>403 Forbidden</title></head>\r\n<body>\r\n<center><h1>403 Forbidden</h1></center>\r\n"+
		"<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n")
}

// refuse answers 400. The answer contains the path, and so the token.
func (c *call) refuse(message string) {
	c.w.Header().Set("Content-Type", "application/json")
	c.w.WriteHeader(http.StatusBadRequest)
	_ = json.NewEncoder(c.w).Encode(map[string]any{
		"statusCode": http.StatusBadRequest, "timestamp": time.Now().UTC().Format(time.RFC3339), "path": c.r.URL.Path, "message": message,
	})
}

func (c *call) answer(value any) {
	c.w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(c.w).Encode(value)
}

func (s *Server) receiveNotification(c *call) {
	wait := minWait
	if text := c.r.URL.Query().Get("receiveTimeout"); text != "" {
		seconds, err := strconv.Atoi(text)
		wait = time.Duration(seconds) * time.Second
		if err != nil || wait < minWait || wait > maxWait {
			c.refuse("Parameter receiveTimeout must be a Number from 5 to 60")
			return
		}
	}
	timer := time.NewTimer(s.scaled(wait))
	defer timer.Stop()
	for {
		head, changed, isURL := s.head(c.instance)
		switch {
		case isURL:
			c.refuse("Message cannot be received because custom webhook url is set")
			return
		case head != nil:
			c.w.Header().Set("Content-Type", "application/json")
			// The body is sent as it was queued: it need not be JSON.
			_, _ = fmt.Fprintf(c.w, `{"receiptId":%d,"body":%s}`, head.receipt, head.body)
			return
		}
		select {
		case <-changed:
			continue
		case <-c.r.Context().Done():
		case <-s.ctx.Done():
		case <-timer.C:
		}
		c.w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(c.w, "null")
		return
	}
}

// head returns the notification to receive, if there is one; a channel that is closed when that may have
// changed; and whether a webhookUrl is in effect. While the sender has one in hand, there is none.
func (s *Server) head(i *instance) (head *queued, changed <-chan struct{}, isURL bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(i.queue) > 0 && !i.sending {
		i.queue[0].received = true
		copied := i.queue[0]
		head = &copied
	}
	return head, i.changed, i.text(webhookURL) != ""
}

func (s *Server) deleteNotification(c *call) {
	receipt, err := strconv.ParseInt(c.rest, 10, 64)
	if err != nil {
		c.refuse("Parameter receiptId must be a Number")
		return
	}
	c.answer(map[string]any{"result": s.remove(c.instance, func(q queued) bool { return q.received && q.receipt == receipt }), "reason": ""})
}

// remove removes a notification from the queue, and reports whether it was there.
func (s *Server) remove(i *instance, which func(queued) bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := slices.IndexFunc(i.queue, which)
	if at < 0 {
		return false
	}
	i.deleted = append(i.deleted, i.queue[at].body)
	i.queue = slices.Delete(i.queue, at, at+1)
	i.wake()
	return true
}

func (s *Server) getSettings(c *call) { c.answer(s.Settings(c.id)) }

func (s *Server) setSettings(c *call) {
	var wanted map[string]any
	if err := json.NewDecoder(c.r.Body).Decode(&wanted); err != nil || len(wanted) == 0 {
		c.refuse("Validation failed. Details: want an object with at least one setting")
		return
	}
	for name, value := range wanted {
		if !s.valid(c.instance, name, value) {
			c.refuse(fmt.Sprintf("Validation failed. Details: '%s' is not allowed", name))
			return
		}
	}
	s.change(c.instance, wanted)
	c.answer(map[string]bool{"saveSettings": true})
}

// valid reports whether the instance has this setting and may have this value.
func (s *Server) valid(i *instance, name string, value any) bool {
	text, isText := value.(string)
	switch name {
	case webhookURL:
		target, err := url.Parse(text)
		return isText && (text == "" || err == nil && target.Host != "" && (target.Scheme == "http" || target.Scheme == "https"))
	case webhookURLToken:
		return isText
	case "delaySendMessagesMilliseconds":
		delay, isNumber := value.(float64)
		return isNumber && delay >= 500 && delay <= 86400000
	}
	s.mu.Lock()
	current := i.text(name)
	s.mu.Unlock()
	return (current == "yes" || current == "no") && (text == "yes" || text == "no")
}

func (s *Server) getStateInstance(c *call) {
	s.mu.Lock()
	state := "authorized"
	if len(c.instance.pending) > 0 {
		state = "starting"
	}
	s.mu.Unlock()
	c.answer(map[string]string{"stateInstance": state})
}

// getWebhooksCount answers with a key whose first letter is Cyrillic, like the vendor's page for WhatsApp.
func (s *Server) getWebhooksCount(c *call) { c.answer(map[string]int{"сount": s.Queued(c.id)}) }

func (s *Server) sendMessage(c *call) {
	var got struct {
		Chat string `json:"chatId"`
		Text string `json:"message"`
	}
	if err := json.NewDecoder(c.r.Body).Decode(&got); err != nil || got.Chat == "" || got.Text == "" {
		c.refuse("Validation failed. Details: 'chatId' and 'message' are required")
		return
	}
	s.mu.Lock()
	id := fmt.Sprintf("3EB0STANDIN%05X", len(s.messages)+1)
	s.messages = append(s.messages, Message{Instance: c.id, Chat: got.Chat, Text: got.Text, ID: id})
	s.mu.Unlock()
	c.answer(map[string]string{"idMessage": id})
}
