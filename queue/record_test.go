package queue

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"reflect"
	"testing"
	"time"
)

var sample = Record{
	Block: "default", Received: time.Date(2026, 11, 27, 10, 0, 0, 5, time.UTC), Instance: "1101000001", Chat: "79990000001@c.us",
	Type: "incomingMessageReceived", Message: "textMessage", ID: "A1", Sent: 1795773600, Kind: "incomingMessageReceived",
	Client: "203.0.113.7", Host: "hooks.example.com", URI: "/green-api/webhook?a=b",
	Header: map[string][]string{"Content-Type": {"application/json"}}, Body: []byte("{\"a\": \"\u00e4\"}"),
}

func TestRecord(t *testing.T) {
	text := sample.Encode()
	got, err := Decode(text)
	if err != nil || !reflect.DeepEqual(*got, sample) {
		t.Errorf("%+v, %v", got, err)
	}
	for at := range text {
		broken := bytes.Clone(text)
		broken[at] ^= 0x40
		if _, err := Decode(broken); !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrVersion) {
			t.Errorf("byte %d changed: %v", at, err)
		}
		if _, err := Decode(text[:at]); !errors.Is(err, ErrDamaged) {
			t.Errorf("cut at %d: %v", at, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	text := sample.Encode()
	f.Add(text)
	f.Add([]byte{1, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, text []byte) {
		if len(text) >= prefixLen { // otherwise the checksum refuses nearly everything
			text = bytes.Clone(text)
			binary.BigEndian.PutUint32(text[1:], crc32.Checksum(text[5:], castagnoli))
		}
		r, err := Decode(text)
		if err != nil {
			return
		}
		if r2, err := Decode(r.Encode()); err != nil || !reflect.DeepEqual(r, r2) {
			t.Fatalf("%+v, then %+v, %v", r, r2, err)
		}
	})
}
