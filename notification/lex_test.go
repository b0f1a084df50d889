package notification

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
)

// lexed is what the functions say about the text, number or word at the beginning of a body.
func lexed(body []byte) (end int, integer bool) {
	switch body[0] {
	case '"':
		return pastText(body, 1), false
	case 't':
		return pastWord(body, 0, "true"), false
	case 'f':
		return pastWord(body, 0, "false"), false
	case 'n':
		return pastWord(body, 0, "null"), false
	default:
		return pastNumber(body, 0)
	}
}

// decoded is the same by jsontext.
func decoded(body []byte) (end int, integer bool) {
	d := jsontext.NewDecoder(bytes.NewBuffer(body), brokenText)
	if _, err := d.ReadToken(); err != nil {
		return broken, false
	}
	end = int(d.InputOffset())
	number := body[0] == '-' || isDigit(body[0])
	return end, number && !bytes.ContainsAny(body[:end], ".eE")
}

// sameLexed holds the two against each other.
func sameLexed(t *testing.T, body []byte) {
	t.Helper()
	end, integer := lexed(body)
	if wantEnd, wantInteger := decoded(body); end != wantEnd || integer != wantInteger {
		t.Errorf("%q: end %d, integer %v; by jsontext %d, %v", body, end, integer, wantEnd, wantInteger)
	}
}

// TestTextBytes has each byte at each place of a text that is read in blocks, in words and byte by byte, and
// with each of its neighbours that could disturb it.
func TestTextBytes(t *testing.T) {
	const length = 150
	for _, filler := range []string{"a", "!", "\xa2", "\xdc", "#", "]"} {
		for at := range length {
			body := []byte(`"` + strings.Repeat(filler, length) + `"`)
			for c := range 256 {
				body[1+at] = byte(c)
				sameLexed(t, body)
			}
		}
	}
	for at := range len(`\u00e9x`) {
		body := []byte(`"\u00e9x"`)
		for c := range 256 {
			body[1+at] = byte(c)
			sameLexed(t, body)
			sameLexed(t, append(bytes.Clone(body[:1+at+1]), `n"`...))
		}
	}
	for tail := range 20 {
		for at := range 90 {
			for _, found := range []string{`"`, `\"`, `\\`, `\u00e9`, `\u00e9\n`, "\x1f", `\x`, `\u00g0`, `\uD800"`} {
				body := []byte(`"` + strings.Repeat("x", at) + found + strings.Repeat("y", tail))
				sameLexed(t, body)
				sameLexed(t, append(body, '"'))
			}
		}
	}
}

// TestCutOff: a body that ends too early.
func TestCutOff(t *testing.T) {
	for _, text := range []string{`"a\u00e9\\b"`, `"` + strings.Repeat("é", 60) + `"`, "true", "false", "null", "-10.25e+30", "0E-1"} {
		for end := 1; end <= len(text); end++ {
			sameLexed(t, []byte(text[:end]))
		}
	}
}

func TestPastNumber(t *testing.T) {
	const letters = "-+0.e19x"
	var body []byte
	for i := range 8 * 8 * 8 * 8 * 8 {
		body = body[:0]
		for ; i > 0; i /= 8 {
			body = append(body, letters[i%8])
		}
		if len(body) > 0 && (body[0] == '-' || isDigit(body[0])) {
			sameLexed(t, body)
		}
	}
}

func TestPastSpace(t *testing.T) {
	for c := range 256 {
		want := 0
		if strings.ContainsRune(" \t\r\n", rune(c)) {
			want = 1
		}
		if got := pastSpace([]byte{byte(c)}, 0); got != want {
			t.Errorf("%#x: got %d", c, got)
		}
	}
}

// FuzzLex compares with jsontext whatever begins a value that contains no other.
func FuzzLex(f *testing.F) {
	for _, text := range []string{
		`"a"`, `"\ud83d\ude00\n"`, "\"\xff\xd0\"", "\"a\x00\"", `"` + strings.Repeat("abcdefg ", 20) + `\"é"`, "-0.5e+3", "01", "1e", "true", "nul",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if len(body) > 0 && strings.IndexByte(`"-0123456789tfn`, body[0]) >= 0 {
			sameLexed(t, body)
		}
	})
}

// BenchmarkPastText is what a text takes without anything around it.
func BenchmarkPastText(b *testing.B) {
	for _, length := range []int{5, 20, 50, 1_000, 1_000_000} {
		b.Run(fmt.Sprint(length), func(b *testing.B) {
			body := []byte(`"` + strings.Repeat("x", length) + `","` + strings.Repeat("y", 50))
			b.SetBytes(int64(length))
			for b.Loop() {
				if pastText(body, 1) != length+2 {
					b.Fatal("another end")
				}
			}
		})
	}
}
