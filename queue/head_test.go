package queue

import (
	"reflect"
	"testing"
	"time"
)

// TestHead sets each field of a record in turn, then all of them, and lets them come back.
func TestHead(t *testing.T) {
	for _, text := range []string{"plain", "a\"b\\c", "line\nbreak", "é\u2028", "\xff\x00\x7f", string(make([]byte, 300))} {
		all := new(Record)
		for field := range reflect.TypeFor[Record]().Fields() {
			one := new(Record)
			for _, r := range []*Record{one, all} {
				switch v := reflect.ValueOf(r).Elem().FieldByIndex(field.Index); v.Interface().(type) {
				case string:
					v.SetString(text)
				case bool:
					v.SetBool(true)
				case int64:
					v.SetInt(1795773600 - int64(len(text))<<40)
				case time.Time:
					v.Set(reflect.ValueOf(time.Unix(1795773600, int64(len(text))).UTC()))
				case map[string][]string:
					v.Set(reflect.ValueOf(map[string][]string{text: {text, "", text}, "X-None": nil, "Content-Type": {"application/json"}}))
				case []byte:
					v.SetBytes([]byte(text))
				default:
					t.Fatalf("test does not know the type of field %s", field.Name)
				}
			}
			comesBack(t, one)
			comesBack(t, all)
		}
	}
}

func comesBack(t *testing.T, r *Record) {
	t.Helper()
	got, err := Decode(r.Encode())
	if err != nil {
		t.Fatalf("%+v: %v", r, err)
	}
	if len(got.Body) == 0 {
		got.Body = r.Body
	}
	if !reflect.DeepEqual(got, r) {
		t.Errorf("%+v comes back as %+v", r, got)
	}
}

// TestHeadOfLater: a record may get fields that this program does not know.
func TestHeadOfLater(t *testing.T) {
	later := append(sample.appendHead(nil), 200, 2, 'x', 'y')
	got := new(Record)
	if err := got.readHead(append(later, tagKind, 1, 'k')); err != nil || got.Chat != sample.Chat || got.Kind != "k" {
		t.Errorf("%+v, %v", got, err)
	}
}

func BenchmarkDecode(b *testing.B) {
	text := sample.Encode()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Decode(text); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEncode(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		sample.Encode()
	}
}
