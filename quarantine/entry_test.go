package quarantine

import (
	"bytes"
	"encoding/hex"
	"errors"
	"reflect"
	"regexp"
	"slices"
	"testing"
	"time"
)

var testTime = time.Date(2026, 11, 21, 3, 41, 50, 123456789, time.UTC)

// testEntry returns an entry with every field set but those that Put sets.
func testEntry(body []byte) Entry {
	return Entry{
		Received: testTime, Name: "default", Reason: "schema", Type: "incomingMessageReceived", Message: "textMessage",
		Instance: "1101000001", Chat: "79990000000@c.us", NotificationID: "3EB0000000", Offset: 17, Cause: "invalid character",
		Faults: []Fault{{Pointer: "/messageData/typeMessage", Keyword: "enum"}, {Pointer: "", Keyword: "required"}},
		Client: "192.0.2.10",
		Header: map[string][]string{"Content-Type": {"application/json", "text/plain"}, "Content-Encoding": {"gzip"}},
		Body:   body,
	}
}

// testBody returns n bytes that do not repeat and are not UTF-8.
func testBody(n int) []byte {
	body := make([]byte, n)
	x := uint32(n + 1)
	for i := range body {
		x = x*1664525 + 1013904223
		body[i] = byte(x >> 24)
	}
	return body
}

func TestRecord(t *testing.T) {
	for _, n := range []int{0, 1, inlineMax, inlineMax + 1, partLen, partLen + 1, 3*partLen - 1} {
		want := testEntry(testBody(n))
		record, parts, err := encodeRecord(want)
		if err != nil {
			t.Fatal(err)
		}
		got, rest, err := decodeHead(record)
		if err != nil {
			t.Fatalf("body of %d bytes: %v", n, err)
		}
		if apart := len(parts) > 0; apart != (n > inlineMax) {
			t.Errorf("body of %d bytes: in %d parts", n, len(parts))
		}
		got.Body = append(slices.Clip(rest), bytes.Join(parts, nil)...)
		want.Size = int64(n)
		if err := checkBody(record, got.Body); err != nil {
			t.Errorf("body of %d bytes: %v", n, err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("body of %d bytes: got %+v, want %+v", n, got, want)
		}
	}
}

// TestRecordFormat pins format 1: files that hold it must stay readable.
func TestRecordFormat(t *testing.T) {
	const stored = "01" + "a4b2250d" + "0000004b" + "0000000000000002" + "52825351" +
		"7b227265636569766564223a22323032362d31312d32315430333a34313a35302e3132333435363738395a22" +
		"2c22726561736f6e223a226d616c666f726d6564222c2273697a65223a327d" + "ff00"
	record, _, err := encodeRecord(Entry{Received: testTime, Reason: "malformed", Body: []byte{0xff, 0}})
	if err != nil {
		t.Fatal(err)
	}
	if got := hex.EncodeToString(record); got != stored {
		t.Errorf("record is now\n%s, was\n%s", got, stored)
	}
}

func TestDecodeDamaged(t *testing.T) {
	record, _, err := encodeRecord(testEntry([]byte("body")))
	if err != nil {
		t.Fatal(err)
	}
	for i := range record {
		bad := bytes.Clone(record)
		bad[i] ^= 0x40
		_, rest, err := decodeHead(bad)
		if err == nil {
			err = checkBody(bad, rest)
		}
		want := ErrDamaged
		if i == 0 {
			want = ErrVersion
		}
		if !errors.Is(err, want) {
			t.Errorf("byte %d changed: got error %v, want %v", i, err, want)
		}
		_, rest, err = decodeHead(record[:i])
		if err == nil {
			err = checkBody(record, rest)
		}
		if !errors.Is(err, ErrDamaged) {
			t.Errorf("cut to %d bytes: got error %v", i, err)
		}
	}
}

func TestNewID(t *testing.T) {
	safe := regexp.MustCompile(`^[0-9a-fT-]+$`)
	prev := ""
	for i, at := range []time.Time{
		testTime.Add(-time.Hour).In(time.FixedZone("", 3600)), testTime, testTime,
		testTime.Add(time.Millisecond), testTime.Add(24 * time.Hour),
	} {
		id := newID(at, uint64(i+9))
		if id <= prev || !safe.MatchString(id) {
			t.Errorf("got ID %q after %q", id, prev)
		}
		prev = id
	}
	if got, want := newID(testTime, 42), "20261121T034150123-0000002a"; got != want {
		t.Errorf("got ID %q, want %q", got, want)
	}
}

// FuzzEntry takes data for a stored record and for a body.
func FuzzEntry(f *testing.F) {
	record, _, err := encodeRecord(testEntry([]byte(`{"typeWebhook":`)))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(record)
	f.Add(record[:prefixLen])
	f.Add(record[:prefixLen-1])
	f.Add([]byte{})
	f.Add([]byte{recordFormat + 1})
	f.Add(append([]byte{1, 0, 0, 0, 0}, bytes.Repeat([]byte{0xff}, 40)...))
	f.Add([]byte("\x00\xff\xfe{\"a\":\"\xed\xa0\x80\"}"))
	f.Add(testBody(inlineMax + 1))
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, rest, err := decodeHead(data); err == nil {
			_ = checkBody(data, rest)
		} else if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrVersion) {
			t.Errorf("got error %v", err)
		}
		record, parts, err := encodeRecord(testEntry(data))
		if err != nil {
			t.Fatal(err)
		}
		e, rest, err := decodeHead(record)
		if err != nil {
			t.Fatal(err)
		}
		body := append(bytes.Clone(rest), bytes.Join(parts, nil)...)
		if err := checkBody(record, body); err != nil || !bytes.Equal(body, data) || e.Size != int64(len(data)) {
			t.Errorf("body changed from %q to %q: %v", data, body, err)
		}
	})
}

// TestTimeOf: an ID says when its entry came, whatever else of it can be read.
func TestTimeOf(t *testing.T) {
	if got, ok := TimeOf(newID(testTime, 7)); !ok || !got.Equal(testTime.Truncate(time.Millisecond)) {
		t.Errorf("got %v, %v", got, ok)
	}
	for _, id := range []string{"", "none", "20261121T034150123", "20261399T999999999-00000001"} {
		if got, ok := TimeOf(id); ok {
			t.Errorf("%q: got %v", id, got)
		}
	}
}
