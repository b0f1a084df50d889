package browsertest

import (
	"net"
	"net/http"
	"testing"
	"time"
)

// soon is how long the page may take to show something with the full bars, of which it asks every five seconds.
const soon = 6 * time.Second

// appears waits until JavaScript is true, and says how long that took.
func (p *tab) appears(what, condition string) {
	p.t.Helper()
	began := time.Now()
	p.await(condition)
	took := time.Since(began)
	p.t.Logf("%s: after %.1f s", what, took.Seconds())
	if full() && took > soon {
		p.t.Errorf("%s took %v, want at most %v", what, took, soon)
	}
}

// sentence is JavaScript that is true while the sentence on top says something.
func sentence(part string) string {
	return "document.querySelector('#sentence').innerText.includes(" + js(part) + ")"
}

// overviewSays is JavaScript that is true while some finding on the Overview says something.
func overviewSays(part string) string {
	return "document.querySelector('main[data-screen=overview]').innerText.includes(" + js(part) + ")"
}

// TestStanding: what is wrong shows on the Overview, and goes when it is over.
func TestStanding(t *testing.T) {
	t.Parallel()
	h := startHandler(t)
	e := startEdge(t, oneSite, "HANDLERS", h.address()+" {\nunhealthy_request_count 8\n}")
	_, p := openConsole(t, e)
	e.post(message(1101000002, "79001234502", "all is well"))
	p.appears("the first one", "!"+overviewSays("Nothing has come yet"))
	if p.comes(sentence("1101000007"), 0) {
		t.Fatal("it stands still already")
	}

	// The handler fails, and the sender comes again and again.
	h.status.Store(http.StatusInternalServerError)
	body := message(1101000007, "79001234507", "the same again")
	if status := e.post(body); status == http.StatusOK {
		t.Fatal("delivered")
	}
	p.appears("the instance that stands still", sentence("1101000007"))
	p.appears("its handler and what it said", "document.querySelector('#sentence').innerText.includes('500') && "+overviewSays(h.address()))

	p.click("main a[href='#/live?instance=1101000007&outcome=failed']") // there is nothing else to see of it
	p.awaitText("main[data-screen=live] tbody tr", "1101000007")
	p.screen("#/instances")
	p.awaitText("tr[data-id='1101000007']", "500")
	p.screen("#/handlers")
	p.await("[...document.querySelectorAll('tr[data-id]')].some((row) => row.dataset.id.includes(" + js(h.address()) + ") && row.innerText.includes('500') && row.innerText.includes('0 / 8'))")
	p.await("/: 1 taken, [1-9]\\d* not taken, at most \\d+ in 15 seconds$/.test(document.querySelector('tr[data-id] svg.spark').getAttribute('aria-label'))")
	p.await("document.querySelectorAll('svg.spark path[d^=M][d$=z]').length === 2") // both are drawn
	p.screen("#/overview")

	h.status.Store(http.StatusOK)
	if status := e.post(body); status != http.StatusOK {
		t.Fatalf("status %d", status)
	}
	p.appears("its end", "!"+overviewSays("1101000007"))
}

// ownTokens is for the site of oneSite: a block with an instance that has a token of its own.
const ownTokens = `green_api /own/webhook* {
		name own
		ip_filter {
			allow 127.0.0.1
		}
		auth {
			token TOKEN
			instance 1101000031 own-token-for-tests-31
			instance 1101000032 own-token-for-tests-32
		}
		reverse_proxy HANDLERS
	}`

// TestAlertEndpoint: alerts that nobody takes show, and go once somebody does; and so do instances that are silent or refused.
func TestAlertEndpoint(t *testing.T) {
	t.Parallel()
	h := startHandler(t)
	port := freePort(t)
	e := startEdge(t, oneSite, "HANDLERS", h.address(), "GLOBAL", "alert http://127.0.0.1:"+port+"/alerts {\nsilence 1s\n}", "SITE", ownTokens)
	_, p := openConsole(t, e)
	e.post(rawMessage(1101000001, "79001234501", "5"))
	p.appears("the alert that is not taken", overviewSays("127.0.0.1:"+port))
	p.screen("#/activity")

	if status, err := e.tryPostTo("/own/webhook", message(1101000031, "79001234531", "its token is another")); err != nil || status != http.StatusForbidden {
		t.Fatalf("status %d %v", status, err)
	}
	p.screen("#/overview")
	p.appears("the instance that is refused", overviewSays("1 instance is refused: 1101000031, instance_not_allowed."))
	p.appears("the silent ones", overviewSays("1 instance is silent: nothing has come from 1101000032"))
	p.screen("#/instances")
	p.await("[...document.querySelectorAll('tr[data-id]')].map((row) => row.dataset.id).join() === '1101000031,1101000032,1101000001'")
	p.awaitText("tr[data-id='1101000031']", "refused")
	p.awaitText("tr[data-id='1101000032']", "silent for")
	p.screen("#/overview")

	listener, err := net.Listen("tcp", "127.0.0.1:"+port)
	if err != nil {
		t.Skip("somebody else has got the port: ", err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), ReadHeaderTimeout: patience}
	go server.Serve(listener) //nolint:errcheck // it ends with Close
	defer server.Close()
	// The edge tries again after a pause that grows, which is its business.
	if !p.comes("!"+overviewSays("127.0.0.1:"+port), 3*patience) {
		t.Errorf("it is still said that the alert is not taken:\n%s", p.text("main"))
	}
}

// TestDrift: a rule that gave way is told.
func TestDrift(t *testing.T) {
	t.Parallel()
	h := startHandler(t)
	e := startEdge(t, oneSite, "HANDLERS", h.address())
	_, p := openConsole(t, e)
	for i := range 24 {
		e.post(rawMessage(1101000001+i%3, "79001234501", "5"))
	}
	p.appears("the rule", overviewSays("/messageData/textMessageData/textMessage type is no longer enforced"))
	p.screen("#/setup")
	p.awaitText("main", "/messageData/textMessageData/textMessage")
}
