package browsertest

import (
	"fmt"
	"net/http"
	"testing"
)

// queueBlock is for the site of oneSite: a second block, with a queue.
const queueBlock = `green_api /queue/webhook* {
		name queued
		ip_filter off
		auth {
			token TOKEN
		}
		queue {
			key instance
			retry 1h
		}
		reverse_proxy HANDLERS
	}`

// startEverything starts an edge at which there is something to see on every screen: an instance that stands still, a lane,
// entries of several reasons, an alert that cannot be sent, instances that
// are refused or silent.
func startEverything(t *testing.T) *edge {
	t.Helper()
	h := startHandler(t)
	e := startEdge(t, oneSite, "SITE", queueBlock+"\n"+ownTokens, "HANDLERS", h.address(), "GLOBAL", "alert http://127.0.0.1:"+freePort(t)+"/alerts {\nsilence 1s\n}")
	for i := range 12 {
		e.post(message(1101000001+i%4, fmt.Sprintf("790012345%02d", i), fmt.Sprintf("Message %d", i)))
	}
	for _, body := range []string{rawMessage(1101000001, "79001234501", "5"), rawMessage(1101000002, "79001234502", "007"), `{"typeWebhook":"incomingMessageReceived"`,
		`{"typeWebhook":"somethingNew","instanceData":{"idInstance":1101000003,"wid":"79001234567@c.us","typeInstance":"whatsapp"},"timestamp":1767226200}`} {
		if status := e.post(body); status != http.StatusOK {
			t.Fatalf("status %d for %s", status, body)
		}
	}
	h.status.Store(http.StatusInternalServerError)
	e.post(message(1101000007, "79001234507", "taken by nobody"))
	for i := range 3 {
		if status, err := e.tryPostTo("/queue/webhook", message(1101000008, "79001234508", fmt.Sprintf("in line, number %d", i))); err != nil || status != http.StatusOK {
			t.Fatalf("status %d %v", status, err)
		}
	}
	if status, err := e.tryPostTo("/own/webhook", message(1101000031, "79001234531", "its token is another")); err != nil || status != http.StatusForbidden {
		t.Fatalf("status %d %v", status, err)
	}
	return e
}

// allScreens are those of startEverything.
var allScreens = []string{"#/overview", "#/live", "#/quarantine", "#/queue", "#/handlers", "#/instances", "#/activity", "#/setup"}

// TestSays: the page says what was done, and of what there is no more and no less.
func TestSays(t *testing.T) {
	t.Parallel()
	e := startEverything(t)
	c, p := openConsole(t, e)
	for i := range 8 { // each stands still
		e.post(message(1101000011+i, "79001234507", "taken by nobody"))
	}

	// The Overview: as many as it counts, those that it hides among them, and what is good to know apart from them.
	p.appears("the last one", overviewSays("1101000018"))
	p.await(`(() => { const [others, notes] = [...document.querySelectorAll('main > section.card')].filter((card) => card.querySelector('.findings'));
		return others.querySelectorAll('.findings li').length === parseInt(others.querySelector('h2').textContent, 10) && !others.querySelector('li.note') &&
			others.querySelectorAll('details li').length === parseInt(others.querySelector('summary').textContent, 10) && notes.querySelector('li.note'); })()`)

	p.await("/kept since [\\d:]+:\\s+malformed/.test(document.querySelector('main').textContent)") // a body that cannot be read has no type
	p.awaitOne("a[href='#/quarantine?reason=malformed']")

	// Setup: the way through the queue.
	p.screen("#/setup")
	p.awaitText("main", "queued, through the queue, which delivers directly")
	p.awaitText("main", "own, delivers directly")

	// The queue: each order says what it did.
	p.screen("#/queue")
	p.click("button[data-act=pause]")
	p.awaitText(".filters [role=status]", "All is paused")
	p.click("button[data-act=resume]")
	p.awaitText(".filters [role=status]", "All goes on")
	p.click("button[data-act=retry]")
	p.awaitText(".filters [role=status]", "1 lane is tried again now")
	p.click("tr[data-id]")
	p.click("section.detail button[data-act=pause]")
	p.awaitText(".filters [role=status]", "Paused: 1101000008.")

	// On narrow windows, a short page is not longer than they are, and it shows who did something.
	for _, width := range []int64{780, 390} {
		p.size(width, 1200)
		p.await("document.documentElement.scrollHeight <= innerHeight")
	}
	p.click("section.detail button[data-for=block]")
	p.await("document.querySelector('.filters [role=status]').innerText.includes('Paused: queued.') && document.querySelector('.filters [role=status]').getClientRects().length && !document.querySelector('.filters input').getClientRects().length")
	p.screen("#/activity")
	p.await("document.querySelector('td.wrap').getClientRects().length")
	p.wantQuiet(c.origin)
}
