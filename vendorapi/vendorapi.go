// Package vendorapi is a client of GREEN-API's HTTP API, limited to what receiving notifications and
// setting up an instance need.
//
// A method is called as {url}/waInstance{instance}/{method}/{token}, with the token in the URL. So no error
// of this package contains a URL, and no redirect is followed (GREEN-API docs: "HTTP API technology",
// "SetSettings" and the pages of the methods, read 2026-07).
package vendorapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// DefaultURL is the API's address for instances for which the console shows no other (in its field
// `apiUrl`).
const DefaultURL = "https://api.green-api.com"

// The limits of ReceiveNotification's wait.
const (
	MinWait = 5 * time.Second
	MaxWait = 60 * time.Second
)

const (
	// defaultTimeout is for a call that does not wait for anything.
	defaultTimeout = 30 * time.Second
	// maxAnswer is the longest answer to read. The vendor documents no limit for a notification; files
	// never come inline.
	maxAnswer = 32 << 20
)

// Client calls the API for one instance. It is safe for concurrent use.
type Client struct {
	// The API's address, `apiUrl` in the console. Default: DefaultURL.
	URL string
	// The instance's ID and token, `idInstance` and `apiTokenInstance` in the console. Required.
	Instance, Token string
	// Makes the calls. It must not follow redirects; see NewHTTP. Default: a client of the package.
	HTTP *http.Client
	// How long a call may take, in addition to its wait for a notification. Default: 30s.
	Timeout time.Duration
}

// NewHTTP returns a client for any number of instances. They poll at the same time, so each has its own
// connection: HTTP/2 would share one, and its stream limit, among them.
func NewHTTP() *http.Client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.ForceAttemptHTTP2 = false
	transport.Protocols = new(http.Protocols)
	transport.Protocols.SetHTTP1(true)
	transport.MaxIdleConns = 0
	transport.MaxIdleConnsPerHost = 1 << 16
	return &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

var defaultHTTP = NewHTTP()

// Received is a notification at the head of the instance's queue.
type Received struct {
	// The ID for DeleteNotification.
	ReceiptID int64
	// The notification itself, byte for byte. If the answer is not JSON, this is what stands in the place
	// of the notification, so that the receiver can keep it and go on.
	Body []byte
}

// ReceiveNotification returns the notification at the head of the queue, or nil if none comes within wait
// (5s to 60s). It returns the same one until that is deleted.
func (c *Client) ReceiveNotification(ctx context.Context, wait time.Duration) (*Received, error) {
	wait = min(max(wait, MinWait), MaxWait)
	answer, err := c.call(ctx, http.MethodGet, "receiveNotification",
		"?receiveTimeout="+strconv.Itoa(int(wait/time.Second)), nil, wait)
	if err != nil {
		return nil, err
	}
	return received(answer)
}

// The parts of an answer that is not JSON because the notification in it is not (this has happened:
// github.com/green-api/issues/issues/553). The order of the vendor's members varies.
var (
	receiptFirst = regexp.MustCompile(`^\s*\{\s*"receiptId"\s*:\s*([0-9]{1,18})\s*,\s*"body"\s*:`)
	bodyFirst    = regexp.MustCompile(`^\s*\{\s*"body"\s*:`)
	receiptLast  = regexp.MustCompile(`,\s*"receiptId"\s*:\s*([0-9]{1,18})\s*\}\s*$`)
)

// brokenReceived takes such an answer apart. It looks only at the ends, because the answer may be long.
func brokenReceived(answer []byte) *Received {
	const ends = 200
	answer = bytes.TrimSpace(answer)
	head, tail := answer[:min(ends, len(answer))], answer[max(0, len(answer)-ends):]
	digits, body := []byte(nil), []byte(nil)
	if found := receiptFirst.FindSubmatchIndex(head); found != nil && bytes.HasSuffix(answer, []byte("}")) {
		digits, body = head[found[2]:found[3]], answer[found[1]:len(answer)-1]
	} else if begin, end := bodyFirst.FindIndex(head), receiptLast.FindSubmatchIndex(tail); begin != nil && end != nil {
		from, to := begin[1], len(answer)-len(tail)+end[0]
		if from > to {
			return nil
		}
		digits, body = tail[end[2]:end[3]], answer[from:to]
	}
	if digits == nil {
		return nil
	}
	id, _ := strconv.ParseInt(string(digits), 10, 64) // the regexps limit it to 18 digits
	return &Received{ReceiptID: id, Body: bytes.TrimSpace(body)}
}

func received(answer []byte) (*Received, error) {
	if trimmed := bytes.TrimSpace(answer); len(trimmed) == 0 || string(trimmed) == "null" {
		return nil, nil // an empty queue is neither a notification nor an error
	}
	var envelope struct {
		ReceiptID *int64          `json:"receiptId"`
		Body      json.RawMessage `json:"body"`
	}
	if err := json.Unmarshal(answer, &envelope); err == nil && envelope.ReceiptID != nil && envelope.Body != nil {
		return &Received{ReceiptID: *envelope.ReceiptID, Body: envelope.Body}, nil
	}
	if broken := brokenReceived(answer); broken != nil {
		return broken, nil
	}
	return nil, &Error{Method: "receiveNotification", Status: http.StatusOK, Message: "the answer has no receiptId and body"}
}

// ParseReceived returns the notification in an answer of receiveNotification, nil if the text is not such
// an answer. A bare notification, which has a typeWebhook, is not one, whatever else it contains.
func ParseReceived(text []byte) *Received {
	var itself struct {
		Type any `json:"typeWebhook"`
	}
	if json.Unmarshal(text, &itself) == nil && itself.Type != nil {
		return nil
	}
	got, err := received(text)
	if err != nil {
		return nil
	}
	return got
}

// DeleteNotification takes a notification off the queue. It returns false if it was not there.
func (c *Client) DeleteNotification(ctx context.Context, receiptID int64) (bool, error) {
	var answer struct {
		Result bool `json:"result"`
	}
	err := c.callJSON(ctx, http.MethodDelete, "deleteNotification", "/"+strconv.FormatInt(receiptID, 10), nil, &answer)
	return answer.Result, err
}

// GetSettings returns the instance's settings. After SetSettings it returns the old ones until the new ones
// take effect.
func (c *Client) GetSettings(ctx context.Context) (Settings, error) {
	var settings Settings
	err := c.callJSON(ctx, http.MethodGet, "getSettings", "", nil, &settings)
	if err == nil && settings == nil {
		err = &Error{Method: "getSettings", Status: http.StatusOK, Message: "the answer has no settings"}
	}
	return settings, err
}

// SetSettings changes the given settings and no others. The instance restarts, and the change takes up to
// five minutes to take effect.
func (c *Client) SetSettings(ctx context.Context, settings Settings) error {
	var answer struct {
		Saved bool `json:"saveSettings"`
	}
	if err := c.callJSON(ctx, http.MethodPost, "setSettings", "", settings, &answer); err != nil {
		return err
	}
	if !answer.Saved {
		return &Error{Method: "setSettings", Status: http.StatusOK, Message: "saveSettings is not true"}
	}
	return nil
}

// GetStateInstance returns the state of the instance: `authorized`, `notAuthorized`, `blocked`,
// `sleepMode`, `starting`, `yellowCard`, or a new one.
func (c *Client) GetStateInstance(ctx context.Context) (string, error) {
	var answer struct {
		State string `json:"stateInstance"`
	}
	err := c.callJSON(ctx, http.MethodGet, "getStateInstance", "", nil, &answer)
	return answer.State, err
}

// GetWebhooksCount returns how many notifications are queued for the instance. The vendor updates the count
// every ten seconds.
func (c *Client) GetWebhooksCount(ctx context.Context) (int, error) {
	var answer struct {
		Count *int `json:"count"`
		// The first letter is Cyrillic, as on the vendor's page for WhatsApp.
		Cyrillic *int `json:"сount"`
	}
	if err := c.callJSON(ctx, http.MethodGet, "getWebhooksCount", "", nil, &answer); err != nil {
		return 0, err
	}
	switch {
	case answer.Count != nil:
		return *answer.Count, nil
	case answer.Cyrillic != nil:
		return *answer.Cyrillic, nil
	}
	return 0, &Error{Method: "getWebhooksCount", Status: http.StatusOK, Message: "the answer has no count"}
}

// SendMessage sends a text to a chat (such as 79001234567@c.us), and returns its idMessage.
func (c *Client) SendMessage(ctx context.Context, chat, text string) (string, error) {
	var answer struct {
		ID string `json:"idMessage"`
	}
	err := c.callJSON(ctx, http.MethodPost, "sendMessage", "", map[string]string{"chatId": chat, "message": text}, &answer)
	return answer.ID, err
}

// callJSON calls a method whose answer is a JSON object.
func (c *Client) callJSON(ctx context.Context, verb, method, suffix string, body, answer any) error {
	var text []byte
	if body != nil {
		var err error
		if text, err = json.Marshal(body); err != nil {
			return err
		}
	}
	got, err := c.call(ctx, verb, method, suffix, text, 0)
	if err != nil {
		return err
	}
	decoder := json.NewDecoder(bytes.NewReader(got))
	decoder.UseNumber()
	if err := decoder.Decode(answer); err != nil {
		return &Error{Method: method, Status: http.StatusOK, Message: "the answer is not the JSON that is documented"}
	}
	return nil
}

// call calls a method and returns the body of its 200 answer.
func (c *Client) call(ctx context.Context, verb, method, suffix string, body []byte, wait time.Duration) ([]byte, error) {
	timeout := c.Timeout
	if timeout == 0 {
		timeout = defaultTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, wait+timeout)
	defer cancel()
	base := c.URL
	if base == "" {
		base = DefaultURL
	}
	target := strings.TrimRight(base, "/") + "/waInstance" + url.PathEscape(c.Instance) + "/" + method + "/" + url.PathEscape(c.Token) + suffix
	r, err := http.NewRequestWithContext(ctx, verb, target, bytes.NewReader(body))
	if err != nil || r.URL.Host == "" || r.URL.Scheme != "http" && r.URL.Scheme != "https" {
		return nil, &Error{Method: method, Message: "invalid address of the API"} // err's text contains the URL
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	client := c.HTTP
	if client == nil {
		client = defaultHTTP
	}
	response, err := client.Do(r)
	if err != nil {
		return nil, c.unreachable(method, err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, c.refusal(method, response)
	}
	answer, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	if err != nil {
		return nil, c.unreachable(method, err)
	}
	if len(answer) > maxAnswer {
		return nil, &Error{Method: method, Status: response.StatusCode, Message: fmt.Sprintf("the answer is longer than %d bytes", maxAnswer)}
	}
	return answer, nil
}

// unreachable returns an error for the network, without the URL that *url.Error carries.
func (c *Client) unreachable(method string, err error) error {
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		err = wrapped.Err
	}
	text := c.redact(err.Error())
	if text != err.Error() { // it contained what the server said
		err = errors.New(text)
	}
	return &Error{Method: method, Message: clip(text), err: err}
}

// refusal returns the error for a status other than 200.
func (c *Client) refusal(method string, response *http.Response) error {
	text, _ := io.ReadAll(io.LimitReader(response.Body, 4<<10)) // as much as there is
	e := &Error{Method: method, Status: response.StatusCode, RetryAfter: retryAfter(response.Header.Get("Retry-After"))}
	var said struct {
		Message string `json:"message"`
	}
	if json.Unmarshal(text, &said) == nil && said.Message != "" {
		text = []byte(said.Message)
	}
	if bytes.HasPrefix(bytes.TrimSpace(text), []byte("<")) {
		text = nil // a proxy's error page
	}
	e.Message = clip(c.redact(strings.ToValidUTF8(strings.TrimSpace(string(text)), "\uFFFD")))
	return e
}

// redact removes the token from a text.
func (c *Client) redact(text string) string {
	if c.Token == "" {
		return text
	}
	text = strings.ReplaceAll(text, url.PathEscape(c.Token), "REDACTED")
	return strings.ReplaceAll(text, c.Token, "REDACTED")
}

func clip(text string) string {
	const most = 200
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "…"
}

// retryAfter parses the header, seconds or a date, up to a day.
func retryAfter(value string) time.Duration {
	const most = 24 * time.Hour
	if seconds, err := strconv.Atoi(value); err == nil {
		return time.Duration(min(max(seconds, 0), int(most/time.Second))) * time.Second
	}
	if at, err := http.ParseTime(value); err == nil {
		return min(max(0, time.Until(at)), most)
	}
	return 0
}
