package command

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/greenapi-community/caddy-green-api/internal/follow"
	"github.com/greenapi-community/caddy-green-api/notification"
	"github.com/greenapi-community/caddy-green-api/vendorapi"
)

// apiTokenVariable is the variable for the API token of an instance, which keeps it off the command
// line.
const apiTokenVariable = "GREEN_API_API_TOKEN" //nolint:gosec // a name

// settingsFlags are the flags that the settings commands share.
type settingsFlags struct {
	Config
	apiToken, apiURL string
	file             string
	format           string
}

// with adds the flags to a command.
func (s *settingsFlags) with(cmd *cobra.Command) *cobra.Command {
	flags := cmd.Flags()
	flags.StringVar(&s.apiToken, "api-token", "", "apiTokenInstance, or {file./path}; default is the variable "+apiTokenVariable)
	flags.StringVar(&s.apiURL, "api-url", vendorapi.DefaultURL, "apiUrl, as in the console")
	flags.StringVar(&s.file, "instances", "", "file with one instance a line: ID API_TOKEN [API_URL]")
	flags.StringVar(&s.format, "format", formatText, "text or json")
	return cmd
}

// clients returns a client for each instance that the command is about: the one on the command line, all
// those in the file, or those in the file that the command line names.
func (s *settingsFlags) clients(cmd *cobra.Command, ids []string) ([]*vendorapi.Client, error) {
	if s.format != formatText && s.format != formatJSON {
		return nil, fmt.Errorf("invalid --format %q; want text or json", s.format)
	}
	if err := checkIDs(ids); err != nil {
		return nil, err
	}
	if err := checkURL("--api-url", s.apiURL); err != nil {
		return nil, err
	}
	if s.file != "" {
		if cmd.Flags().Changed("api-token") {
			return nil, errors.New("--api-token is of one instance; the file of --instances has a token for each")
		}
		return s.listed(ids)
	}
	if len(ids) != 1 {
		return nil, errors.New("want the id of one instance, or a file with --instances")
	}
	token := s.apiToken
	if !cmd.Flags().Changed("api-token") {
		token = os.Getenv(apiTokenVariable)
	}
	if token == "" {
		return nil, fmt.Errorf("no API token; want it in the variable %s, by --api-token, or in a file with --instances", apiTokenVariable)
	}
	client, err := s.client(ids[0], token, s.apiURL)
	if err != nil {
		return nil, err
	}
	return []*vendorapi.Client{client}, nil
}

func checkIDs(ids []string) error {
	for i, id := range ids {
		if !notification.IsInstanceID(id) {
			return errors.New("an argument is no instance's id; want 1 to 20 digits")
		}
		if slices.Contains(ids[:i], id) {
			return fmt.Errorf("instance %s is named twice", id)
		}
	}
	return nil
}

func (s *settingsFlags) client(id, token, apiURL string) (*vendorapi.Client, error) {
	token, err := s.Resolve(token)
	if err != nil {
		return nil, fmt.Errorf("API token: %w", err)
	}
	token = strings.TrimSpace(token) // a file ends with a newline
	if strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return nil, errors.New("API token: it has spaces, or what is not ASCII, in it")
	}
	return &vendorapi.Client{URL: apiURL, Instance: id, Token: token}, nil
}

// listed returns the instances of the file, or only the ones named. Its errors name a line and never
// quote it.
func (s *settingsFlags) listed(only []string) (clients []*vendorapi.Client, err error) {
	text, err := os.ReadFile(s.file)
	if err != nil {
		return nil, fmt.Errorf("--instances: %w", err)
	}
	if mark := follow.ByteOrderMark(text); mark != "" {
		return nil, fmt.Errorf("--instances: %s: it begins with a byte-order mark (%s); want UTF-8 without one", s.file, mark)
	}
	known := make(map[string]bool)
	for number, fields := range follow.Lines(text) {
		client, err := s.parseLine(fields, only)
		if err == nil && known[fields[0]] {
			err = fmt.Errorf("instance %s is there already", fields[0])
		}
		if err != nil {
			return nil, fmt.Errorf("--instances: %s:%d: %w", s.file, number, err)
		}
		known[fields[0]] = true
		if client != nil {
			clients = append(clients, client)
		}
	}
	for _, id := range only {
		if !known[id] {
			return nil, fmt.Errorf("--instances: %s: no instance %s in it", s.file, id)
		}
	}
	if len(clients) == 0 {
		return nil, fmt.Errorf("--instances: %s: no instance in it", s.file)
	}
	return clients, nil
}

// parseLine returns the instance of a line, nil if only others are wanted.
func (s *settingsFlags) parseLine(fields, only []string) (*vendorapi.Client, error) {
	if len(fields) < 2 || len(fields) > 3 || !notification.IsInstanceID(fields[0]) {
		return nil, errors.New("want an id, its API token and, if it is another, its API's URL")
	}
	apiURL := s.apiURL
	if len(fields) == 3 {
		apiURL = fields[2]
		if err := checkURL("apiUrl", apiURL); err != nil {
			return nil, err
		}
	}
	if len(only) > 0 && !slices.Contains(only, fields[0]) {
		return nil, nil // only others are wanted
	}
	return s.client(fields[0], fields[1], apiURL)
}

// checkURL refuses a URL that is not http or https. Its error does not quote the URL, which may contain
// a password.
func checkURL(what, text string) error {
	parsed, err := url.Parse(text)
	if err != nil || parsed.Host == "" || parsed.Scheme != "https" && parsed.Scheme != "http" {
		return fmt.Errorf("invalid %s; want a URL that begins with https:// (or http://) and a host", what)
	}
	return nil
}

const (
	// pace is the pause between two calls of the same method for one instance, which is the vendor's limit.
	pace = time.Second
	// settingsTries is how often a call is tried if the API answers 429 or 5xx.
	settingsTries = 5
	// longestRetryAfter limits the pause before another try, whatever the API asks for.
	longestRetryAfter = time.Minute
)

// insist retries a call after a pause if the API answers 429 or 5xx.
func (s *settingsFlags) insist(ctx context.Context, call func() error) error {
	pause := pace
	for try := 1; ; try++ {
		err := call()
		var e *vendorapi.Error
		if err == nil || try == settingsTries || !errors.As(err, &e) ||
			e.Status != http.StatusTooManyRequests && e.Status < http.StatusInternalServerError {
			return err
		}
		if !s.Pause(ctx, max(pause, min(e.RetryAfter, longestRetryAfter))) {
			return err
		}
		pause *= 2
	}
}

// pauseFor waits, and reports whether ctx is still alive.
func pauseFor(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
