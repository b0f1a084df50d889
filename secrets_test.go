package greenapi

import (
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/greenapi-community/caddy-green-api/internal/delivery"
	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
)

// TestSecrets takes tokens through all that can go wrong, with handlers that repeat what they were
// sent, and looks for them wherever somebody might read them.
func TestSecrets(t *testing.T) {
	secrets := map[string]string{
		"SHARED": "canary-shared-7f3a", "OWN": "canary-own-91bc", "LISTED": "canary-listed-c02e", "WRONG": "canary-wrong-55d1", "ALERT": "canary-alert-e8a7",
		"BASIC": base64.StdEncoding.EncodeToString([]byte("canary:basic-3c9f")), "USED": "canary-url-0b6d",
	}
	for name, secret := range secrets {
		t.Setenv("GREEN_API_TEST_"+name, secret)
	}
	clean := func(where, text string) {
		t.Helper()
		for name, secret := range secrets {
			for _, form := range []string{secret, base64.StdEncoding.EncodeToString([]byte("Bearer " + secret))} {
				if at := strings.Index(text, form); at >= 0 {
					t.Errorf("%s has the token %s: …%s…", where, name, text[max(0, at-150):min(len(text), at+50)])
				}
			}
		}
	}

	quickAlerts(t)
	in := edgetest.NewInbox(t, func(n int) int { // it repeats, too
		if n == 1 {
			return 500
		}
		return 200
	})
	up := edgetest.NewUpstream(t, 0, func(w http.ResponseWriter, r *http.Request) {
		for _, name := range []string{"REPEAT", "REFUSE"} {
			if strings.Contains(r.Header.Get("X-Do"), name) || r.Header.Get(replayHeader) != "" {
				w.WriteHeader(map[string]int{"REPEAT": 500, "REFUSE": 422}[name])
				fmt.Fprintf(w, "Fault in %s\nAuthorization: %s\n%v", r.URL, r.Header.Get("Authorization"), r.Header)
				return
			}
		}
	})
	folder := t.TempDir()
	instances := filepath.Join(folder, "instances")
	if err := os.WriteFile(instances, []byte("1101000003 "+secrets["LISTED"]+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	block := "green_api /green-api/webhook* {\nlog_body\nip_filter {\nallow 127.0.0.1\n}\nauth {\ntoken {env.GREEN_API_TEST_SHARED} \"Basic {env.GREEN_API_TEST_BASIC}\"\n" +
		"instance 1101000002 {env.GREEN_API_TEST_OWN}\ninstances " + instances + "\n}\ndeliver {\ndead_letter 2\n}\nreverse_proxy " + up.Address + "\n}\n" +
		"green_api /strict* {\nname strict\nip_filter {\nallow 203.0.113.7\n}\nauth {\ntoken {env.GREEN_API_TEST_SHARED}\n}\n}\nmetrics /metrics\nlog\nrespond 404\n"
	ears := "events {\non green_api.quarantined test_ear\non green_api.failed test_ear\non green_api.refused test_ear\n}\n"
	config := strings.Replace(edgetest.SiteWith(ears, block), "quarantine DIR\n", "quarantine DIR\nalert "+in.URL+"/{env.GREEN_API_TEST_USED} {\nheader Authorization \"Bearer {env.GREEN_API_TEST_ALERT}\"\n}\nmetrics {\nper_instance\n}\n", 1)
	config, admin := edgetest.WithAdmin(t, config)
	heard.Lock()
	heard.events, heard.gate = nil, nil
	heard.Unlock()
	e := edgetest.Start(t, config)

	of := func(instance string) string { return strings.Replace(edgetest.TextMessage, "1101000001", instance, 1) }
	outcomes := make(map[int]int)
	for range 3 { // with one that is taken in between, so that what fails does so by itself
		later(time.Minute)
		for _, test := range []struct{ body, authorization, do string }{
			{edgetest.TextMessage, "Bearer " + secrets["SHARED"], ""},
			{strings.Replace(edgetest.TextMessage, "3EB0", "REPEAT", 1), "Bearer " + secrets["SHARED"], "REPEAT"},
			{strings.Replace(edgetest.TextMessage, "3EB0", "REFUSE", 1), "Basic " + secrets["BASIC"], "REFUSE"},
			{strings.Replace(of("1101000002"), "3EB0", "OWN", 1), "Bearer " + secrets["OWN"], "REFUSE"},
			{strings.Replace(of("1101000003"), "3EB0", "LISTED", 1), secrets["LISTED"], "REPEAT"},
			{edgetest.TextMessage, "Bearer " + secrets["WRONG"], ""},
			{edgetest.TextMessage, "Digest " + secrets["SHARED"], ""},
			{edgetest.TextMessage, "Bearer " + secrets["SHARED"] + " x", ""},
			{edgetest.TextMessage, "Bearer " + secrets["OWN"], ""},
			{of("1101000002"), "Bearer " + secrets["SHARED"], ""},
			{of("1101000003"), "Bearer " + secrets["OWN"], ""},
			{edgetest.Broken("SCHEMA"), "Bearer " + secrets["SHARED"], ""},
			{"{", "Basic " + secrets["BASIC"], ""},
			{strings.Replace(edgetest.TextMessage, "incomingMessageReceived", "brandNew", 1), secrets["SHARED"], ""},
		} {
			outcomes[e.Post(test.body, "Authorization", test.authorization, "X-Do", test.do)]++
		}
		for _, path := range []string{"/strict", "/elsewhere"} {
			e.Send(http.MethodPost, "http://127.0.0.1:"+e.Port+path, strings.NewReader(edgetest.TextMessage), "Authorization", "Bearer "+secrets["SHARED"])
		}
		e.Send(http.MethodGet, e.URL, nil, "Authorization", "Bearer "+secrets["SHARED"])
	}
	for _, status := range []int{200, 401, 403, 502} {
		if outcomes[status] == 0 {
			t.Errorf("no answer was %d: %v", status, outcomes)
		}
	}
	if err := os.WriteFile(instances, []byte("1101000003 "+secrets["LISTED"]+"\n"+secrets["OWN"]+" 1101000004\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	edgetest.Eventually(t, "complaint of the file", func() bool { return strings.Contains(e.Logs.All(), "file cannot be used") })
	edgetest.Eventually(t, "alerts", func() bool { return len(in.All()) > 5 })

	ask := func(method, path string, body string) string {
		t.Helper()
		r, err := http.NewRequest(method, "http://"+admin+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "text/caddyfile")
		response, err := edgetest.Client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		clean(method+" "+path, string(text))
		return string(text)
	}
	for _, part := range []string{`"reason":"undeliverable"`, "Fault in"} {
		if list := ask(http.MethodGet, "/green_api/quarantine?body=true", ""); !strings.Contains(list, part) {
			t.Errorf("nothing of %s is kept: %s", part, list)
		}
	}
	ask(http.MethodGet, "/green_api/status", "")
	ask(http.MethodGet, "/config/", "")
	for _, verb := range []string{"list", "show", "replay", "export"} {
		args := []string{"green-api", "quarantine", verb, "--address", admin}
		if verb == "show" {
			for entry := range strings.Lines(ask(http.MethodGet, "/green_api/quarantine?limit=1&reason=undeliverable", "")) {
				args = append(args, strings.Split(entry, `"`)[3])
			}
		}
		stdout, stderr, _ := edgetest.RunCaddy(t, folder, "", args...)
		clean("quarantine "+verb, stdout+stderr)
	}
	bad := strings.NewReplacer("PORT", e.Port, "DIR", e.Dir).Replace(config)
	for _, slip := range []struct{ old, new string }{
		{"token {env.GREEN_API_TEST_SHARED}", "token Bearer " + secrets["SHARED"]},
		{"token {env.GREEN_API_TEST_SHARED}", "tokn " + secrets["SHARED"]},
		{"token {env.GREEN_API_TEST_SHARED}", secrets["SHARED"]},
		{"instance 1101000002", "instance " + secrets["OWN"]},
		{"instance 1101000002 {env.GREEN_API_TEST_OWN}", "instance " + secrets["OWN"]},
		{"{env.GREEN_API_TEST_USED} {", secrets["USED"] + " " + secrets["USED"] + " {"},
		{in.URL, "ftp://" + secrets["USED"]},
		{"header Authorization", "header " + secrets["ALERT"] + " x"},
	} {
		if !strings.Contains(bad, slip.old) {
			t.Fatalf("no %q", slip.old)
		}
		if said := ask(http.MethodPost, "/load", strings.Replace(bad, slip.old, slip.new, 1)); !strings.Contains(said, "error") {
			t.Errorf("%q loads: %s", slip.new, said)
		}
	}
	clean("the metrics", edgetest.ReadAllOf(t, "http://127.0.0.1:"+e.Port+"/metrics"))
	for _, alert := range in.All() {
		clean("an alert", alert)
	}
	heard.Lock()
	events := heard.events
	heard.Unlock()
	for _, event := range events {
		clean("an event", fmt.Sprint(event.Data))
	}
	clean("the log", e.Logs.All())
	if len(events) == 0 {
		t.Error("no event")
	}
	entries := e.Kept()
	clean("the quarantine", fmt.Sprint(entries))
	file, err := os.ReadFile(filepath.Join(e.Dir, "quarantine.db"))
	if err != nil {
		t.Fatal(err)
	}
	clean("the quarantine's file", string(file))
}

func TestWithoutToken(t *testing.T) {
	long := strings.Repeat("x", delivery.MaxAnswerText)
	for _, test := range []struct{ authorization, text, want string }{
		{"Bearer canary", "a canary, canary\ncanary", "a REDACTED, REDACTED\nREDACTED"},
		{"canary", "Authorization: canary", "Authorization: REDACTED"},
		{"Basic dXNlcjpjYW5hcnk=", "Basic dXNlcjpjYW5hcnk=, that is user:canary", "Basic REDACTED, that is user:REDACTED"},
		{"Bearer canary", long[:delivery.MaxAnswerText-4] + "cana", long[:delivery.MaxAnswerText-4] + "REDACTED"},
		{"Bearer canary", "a c", "a c"},
		{"", "canary", "canary"},
	} {
		if got := delivery.WithoutToken(test.text, http.Header{"Authorization": {test.authorization}}); got != test.want {
			t.Errorf("%q: %q, want %q", test.authorization, got, test.want)
		}
	}
}
