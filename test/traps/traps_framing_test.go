package traps

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
)

// framing is a test of requests about whose ends two servers may be of two minds.
type framing struct {
	name    string
	text    string
	want    []int // all answers; 0 is any but 200
	reached int   // notifications that handlers got
}

// framings returns the tests, with a notification of their own: a sender that closes its half early looks like one
// that has hung up, and its notification is not taken so soon again.
func framings(message string) []framing {
	padded := func(n int) string { return message + strings.Repeat(" ", n-len(message)) }
	noToken := strings.Replace(edgetest.Request(message), "Authorization", "X-Nothing", 1)
	chunked := "Transfer-Encoding: chunked\r\n\r\n"
	return []framing{
		{"whole", edgetest.Request(message), []int{200}, 1},
		{"two after each other", edgetest.Request(message) + edgetest.Request(message+" "), []int{200, 200}, 2},
		{"one without a token after it", edgetest.Request(message) + noToken, []int{200, 401}, 1},
		{"one inside it", edgetest.Request(noToken + edgetest.Request(message)), []int{200}, 0},
		{"length too short", strings.Replace(edgetest.Request(message), fmt.Sprint("Content-Length: ", len(message)), fmt.Sprint("Content-Length: ", len(message)-9), 1), []int{200, 400}, 0},
		{"length too long", strings.Replace(edgetest.Request(message), fmt.Sprint("Content-Length: ", len(message)), fmt.Sprint("Content-Length: ", len(message)+9), 1), []int{0}, 0},
		{"length too long, a request for the rest", edgetest.RawHead + fmt.Sprint("Content-Length: ", len(message)+len(noToken)) + "\r\n\r\n" + message + noToken, []int{200}, 0},
		{"two lengths", edgetest.RawHead + fmt.Sprintf("Content-Length: %d\r\nContent-Length: 5\r\n\r\n", len(message)) + message, []int{400}, 0},
		{"two lengths in a line", edgetest.RawHead + fmt.Sprintf("Content-Length: %d, 5\r\n\r\n", len(message)) + message, []int{400}, 0},
		{"length with a sign", edgetest.RawHead + fmt.Sprintf("Content-Length: +%d\r\n\r\n", len(message)) + message, []int{400}, 0},
		{"negative length", edgetest.RawHead + "Content-Length: -1\r\n\r\n" + message, []int{400}, 0},
		{"no length", edgetest.RawHead + "\r\n" + message, []int{200, 400}, 0},
		{"chunked", edgetest.RawHead + chunked + edgetest.Chunks(message, 7), []int{200}, 1},
		{"chunked, and a length", edgetest.RawHead + "Content-Length: 5\r\n" + chunked + edgetest.Chunks(message, 100), []int{200}, 1},
		{"chunked, one without a token after it", edgetest.RawHead + chunked + edgetest.Chunks(message, 100) + noToken, []int{200, 401}, 1},
		{"chunked, with an extension", edgetest.RawHead + chunked + "3;x=y\r\n" + message[:3] + "\r\n" + edgetest.Chunks(message[3:], 99), []int{200}, 1},
		{"chunked, huge extensions", edgetest.RawHead + chunked + strings.Repeat("1;"+strings.Repeat("x", 2000)+"\r\n \r\n", 500) + edgetest.Chunks(message, 99), []int{0}, 0},
		{"chunked, longer than a number", edgetest.RawHead + chunked + "fffffffffffffffff\r\n" + message + "\r\n0\r\n\r\n", []int{0}, 0},
		{"chunked, negative", edgetest.RawHead + chunked + "-1\r\n" + message + "\r\n0\r\n\r\n", []int{0}, 0},
		{"chunked, with a token in the trailer", strings.Replace(edgetest.RawHead, "Authorization", "X-Nothing", 1) + "Trailer: Authorization\r\n" + chunked + strings.TrimSuffix(edgetest.Chunks(message, 99), "\r\n") + "Authorization: Bearer " + edgetest.Token + "\r\n\r\n", []int{401}, 0},
		{"chunked, without an end", edgetest.RawHead + chunked + strings.TrimSuffix(edgetest.Chunks(message, 99), "0\r\n\r\n"), []int{0}, 0},
		{"coding twice", edgetest.RawHead + "Transfer-Encoding: chunked\r\n" + chunked + edgetest.Chunks(message, 99), []int{0}, 0},
		{"coding twice, one unknown", edgetest.RawHead + "Transfer-Encoding: identity\r\n" + chunked + edgetest.Chunks(message, 99), []int{0}, 0},
		{"coding unknown", edgetest.RawHead + "Transfer-Encoding: xchunked\r\n\r\n" + edgetest.Chunks(message, 99), []int{0}, 0},
		{"coding gzip", edgetest.RawHead + "Transfer-Encoding: gzip, chunked\r\n\r\n" + edgetest.Chunks(message, 99), []int{0}, 0},
		{"coding with a control character", edgetest.RawHead + "Transfer-Encoding: \x0bchunked\r\n\r\n" + edgetest.Chunks(message, 99), []int{0}, 0},
		{"a space before the colon", edgetest.RawHead + "Transfer-Encoding : chunked\r\n\r\n" + edgetest.Chunks(message, 99), []int{0}, 0},
		{"as long as may be", edgetest.Request(padded(2 << 10)), []int{200}, 1},
		{"too long", edgetest.Request(padded(2<<10 + 1)), []int{200}, 0},
		{"too long to keep", edgetest.Request(padded(4<<10 + 1)), []int{413}, 0},
		{"chunked, as long as may be", edgetest.RawHead + chunked + edgetest.Chunks(padded(2<<10), 500), []int{200}, 1},
		{"chunked, too long", edgetest.RawHead + chunked + edgetest.Chunks(padded(2<<10+1), 500), []int{200}, 0},
		{"chunked, too long to keep", edgetest.RawHead + chunked + edgetest.Chunks(padded(4<<10+1), 500), []int{413}, 0},
		{"chunked, and never an end", edgetest.RawHead + chunked + strings.Repeat("400\r\n"+strings.Repeat(" ", 1<<10)+"\r\n", 1000), []int{413}, 0},
		{"a length of terabytes", edgetest.RawHead + "Content-Length: 9999999999999\r\n\r\n" + message, []int{413}, 0},
		{"to another protocol", edgetest.Request(message, "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA"), []int{200}, 1},
		{"HTTP/1.0", strings.Replace(edgetest.Request(message), "HTTP/1.1", "HTTP/1.0", 1), []int{200}, 1},
		{"two hosts", edgetest.Request(message, "Host: elsewhere"), []int{400}, 0},
	}
}

// TestTrapFraming: of a request about whose end two servers may be of two minds, nothing but the
// notification itself may reach a handler.
func TestTrapFraming(t *testing.T) {
	up := edgetest.NewWitness(t)
	e := edgetest.Start(t, edgetest.Site(edgetest.Loopback+"validate {\nmax_body_size 2KiB\nmax_kept_body 4KiB\n}\nreverse_proxy "+up.Address))
	const id = "3EB0"
	for i := range framings(edgetest.TextMessage) {
		message := strings.Replace(edgetest.TextMessage, id, fmt.Sprintf("%04d", i), 1)
		test := framings(message)[i]
		t.Run(test.name, func(t *testing.T) {
			e.T = t
			before := len(up.Requests())
			got := e.AnswersTo(test.text)
			for i := range got {
				if i < len(test.want) && test.want[i] == 0 && got[i] != 200 {
					got[i] = 0
				}
			}
			if len(got) == 0 && test.want[0] == 0 { // not even an answer
				got = []int{0}
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("answers %v, want %v", got, test.want)
			}
			requests := up.Requests()[before:]
			if len(requests) != test.reached {
				t.Errorf("handlers got %d, want %d", len(requests), test.reached)
			}
			for _, r := range requests {
				if strings.TrimSpace(r.Body) != message || r.Length != int64(len(r.Body)) || len(r.Coding) > 0 {
					t.Errorf("a handler got %q, of length %d, coding %q", r.Body, r.Length, r.Coding)
				}
			}
		})
	}
}
