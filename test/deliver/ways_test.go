package deliver

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
)

// Handlers are asked directly, or through Caddy's reverse_proxy. Neither they, nor the sender, nor the operator see a
// difference, except for these, which are on purpose:
//
//   - The fields of a request come in another order, and Idempotency-Key and X-Idempotency-Key as they are. Through Caddy
//     the two come in lower case, because net/http would otherwise send the notification twice.
//   - A space in a query, which only HTTP/2 and HTTP/3 can carry, reaches no handler directly: it would end the request
//     line. net/http writes it as it is.
//   - All interim answers (1xx) share one limit of the header's size. Through Caddy each has its own.
//   - 101 is broken_off, without the placeholders of an answer. Through Caddy it is no_handler.
//   - The body of a 2xx is not decompressed, so it may be broken gzip. The text of a refusal is decompressed even if it
//     was the sender who asked for gzip.
//   - A kept connection that its handler has closed is noticed before it is used again. net/http may be late, and needs
//     another attempt then.
//   - A connection is kept after an answer that came before the end of a long body, if the handler reads the rest at once.
//   - The errors of connections that break off are told without reverse_proxy's and net/http's names for them.
//   - /reverse_proxy/upstreams counts no direct requests as in flight, and reverse_proxy logs nothing about them. At
//     DEBUG, green_api logs each one, and reverse_proxy a roundtrip for each failure that it is told of.

// A way is how a block asks its handlers. Its letter begins the block's name and path.
type way byte

const (
	directly     way = 'd'
	throughCaddy way = 'c'
)

var ways = []way{directly, throughCaddy}

// blocks are green_api blocks, each of them for both ways, on one site or several.
type blocks struct {
	routes  map[string]string // by site
	numbers map[string]int
}

// add adds a block for both ways, unless it is there already, and returns its number. The block of a way takes what
// comes to /, the way's letter, the number and /. What stands before the block and inside it may have the words that
// `in` replaces. If options have the word UPSTREAM, it is replaced by the way's upstreams, which then stand only there.
func (b *blocks) add(site, before, inside string, upstreams map[way]string, options string) int {
	if b.routes == nil {
		b.routes, b.numbers = make(map[string]string), make(map[string]int)
	}
	key := strings.Join([]string{site, before, inside, fmt.Sprint(upstreams), options}, "\x00")
	n, there := b.numbers[key]
	if there {
		return n
	}
	n = len(b.numbers)
	b.numbers[key] = n
	for _, w := range ways {
		to, own := upstreams[w], strings.ReplaceAll(options, "UPSTREAM", upstreams[w])
		if own != options {
			to = ""
		}
		if w == throughCaddy {
			own += "\nverbose_logs" // the direct way has no such logs
		}
		b.routes[site] += fmt.Sprintf("handle /%c%d/* {\n%s\ngreen_api {\nname %c%d\nip_filter off\nauth {\ntoken TOKEN\n}\n%s\nreverse_proxy %s {\n%s\n}\n}\n}\n",
			w, n, w.in(n, before), w, n, w.in(n, inside), to, own)
	}
	return n
}

// in replaces BLOCK, PATH and INSTANCE in a text by what they are for a block of this way.
func (w way) in(block int, text string) string {
	name := fmt.Sprintf("%c%d", w, block)
	return strings.NewReplacer("BLOCK", name, "PATH", "/"+name+"/", "INSTANCE", w.instance()).Replace(text)
}

// instance returns the instance that receives for this way.
func (w way) instance() string {
	if w == directly {
		return "1101000001"
	}
	return "1101000002"
}

// wantWays fails the test unless each block goes the way that it is to go.
func wantWays(t *testing.T, e *edgetest.Edge) {
	t.Helper()
	told := make(map[byte]int)
	for line := range strings.Lines(e.Logs.All()) {
		var said struct{ Msg, Name, Why string }
		if err := json.Unmarshal([]byte(line), &said); err != nil {
			t.Fatal(err)
		}
		switch said.Msg {
		case "handlers are asked directly":
			told[said.Name[0]]++
			if said.Name[0] != byte(directly) {
				t.Errorf("block %s goes directly", said.Name)
			}
		case "handlers are asked through Caddy's reverse_proxy":
			told[said.Name[0]]++
			if said.Name[0] != byte(throughCaddy) {
				t.Errorf("block %s goes through Caddy: %s", said.Name, said.Why)
			}
		}
	}
	if d, c := told[byte(directly)], told[byte(throughCaddy)]; d == 0 || d != c {
		t.Errorf("%d blocks for the direct way, %d for Caddy's", d, c)
	}
}

// markOf returns the idMessage of a row's nth notification. It is equally long for both ways.
func (w way) markOf(row, n int) string { return fmt.Sprintf("WAY%c%03d-%02d", w, row, n) }

// masked replaces what tells a row's two ways from each other.
func (w way) masked(row, block int, text string) string {
	name := fmt.Sprintf("%c%d", w, block)
	return strings.NewReplacer(fmt.Sprintf("WAY%c%03d", w, row), "WAY", "/"+name+"/", "/BLOCK/", `"`+name+`"`, `"BLOCK"`).Replace(text)
}

// A wire is a handler that writes down every byte of the requests that it gets, and answers them 200. If a request has
// the field X-Later, its first attempt is answered 503.
type wire struct {
	mu  sync.Mutex
	got map[string][]arrived // by idMessage
}

type arrived struct{ at, raw string }

// on starts the handler on a listener, until the test ends.
func (h *wire) on(t *testing.T, listener net.Listener) (address string) {
	t.Helper()
	return takes(t, listener, h.serve)
}

func (h *wire) serve(conn net.Conn) {
	defer conn.Close()
	in := bufio.NewReader(conn)
	for {
		raw, err := readRaw(in)
		if err != nil {
			return
		}
		_, mark, _ := bytes.Cut(raw, []byte(`"idMessage":"`))
		mark, _, _ = bytes.Cut(mark, []byte(`"`))
		h.mu.Lock()
		if h.got == nil {
			h.got = make(map[string][]arrived)
		}
		h.got[string(mark)] = append(h.got[string(mark)], arrived{conn.LocalAddr().String(), string(raw)})
		status := "200 OK"
		if bytes.Contains(raw, []byte("\r\nX-Later:")) && len(h.got[string(mark)]) == 1 {
			status = "503 Later"
		}
		h.mu.Unlock()
		if _, err := io.WriteString(conn, "HTTP/1.1 "+status+"\r\nContent-Length: 0\r\n\r\n"); err != nil {
			return
		}
	}
}

// of returns the requests with this idMessage.
func (h *wire) of(mark string) []arrived {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.got[mark]
}

// readRaw reads a request as it came.
func readRaw(in *bufio.Reader) ([]byte, error) {
	var raw []byte
	length, chunked := 0, false
	for {
		line, err := in.ReadSlice('\n')
		raw = append(raw, line...)
		if err == bufio.ErrBufferFull { //nolint:errorlint // ReadSlice returns it as it is
			continue
		}
		if err != nil {
			return nil, err
		}
		if len(line) == 2 && bytes.HasSuffix(raw, []byte("\n\r\n")) {
			break
		}
		name, value, _ := strings.Cut(string(line), ":")
		switch strings.ToLower(name) {
		case "content-length":
			if length, err = strconv.Atoi(strings.TrimSpace(value)); err != nil {
				return nil, err
			}
		case "transfer-encoding":
			chunked = true
		}
	}
	if chunked {
		for !bytes.HasSuffix(raw, []byte("\r\n0\r\n\r\n")) {
			b, err := in.ReadByte()
			if err != nil {
				return nil, err
			}
			raw = append(raw, b)
		}
		return raw, nil
	}
	body := make([]byte, length)
	_, err := io.ReadFull(in, body)
	return append(raw, body...), err
}
