package notification

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// TestNamesTwice has a name for the second time, written in the same way or in another, after any
// number of others.
func TestNamesTwice(t *testing.T) {
	t.Parallel()
	counts := []int{1, maxListed - 1, maxListed, maxListed + 1, segmentSlots, 3 * segmentSlots, 20 * segmentSlots}
	if raceDetector {
		counts = counts[:5]
	}
	for _, count := range counts {
		var b strings.Builder
		b.WriteString(strings.TrimSuffix(minimal, "}"))
		for i := range count {
			fmt.Fprintf(&b, `,"name %d":{"a":0,"b":{"a":0}}`, i)
		}
		for _, again := range []int{-1, 0, count / 2, count - 1} {
			for _, form := range []string{"name %d", `n\u0061me %d`} {
				name := fmt.Sprintf(form, again)
				body := b.String() + `,"` + name + `":0,"` + strings.Replace(name, "n", `\u006e`, 1) + `?":0}`
				_, err := Parse([]byte(body))
				errs := []error{err}
				if count <= 3*segmentSlots { // the other parser knows no segments
					_, slow := parseObject([]byte(body))
					errs = append(errs, slow)
				}
				if again < 0 {
					if err := errors.Join(errs...); err != nil {
						t.Errorf("%d names, and another: %v", count, err)
					}
					continue
				}
				want := SyntaxError{int64(b.Len()) + 1, "", causeTwice}
				for _, err := range errs {
					var got *SyntaxError
					if !errors.As(err, &got) || *got != want {
						t.Errorf("%d names, and %s: got %v, want %v", count, name, err, &want)
					}
				}
			}
		}
	}
}

// TestNamesOfManyObjects: what is known of an object does not outlive it, and a body that waited for
// its turn lets others have theirs.
func TestNamesOfManyObjects(t *testing.T) {
	var b strings.Builder
	for i := range (freeSegments + 1) * segmentSlots {
		fmt.Fprintf(&b, `"%x":0,`, i)
	}
	object := "{" + strings.TrimSuffix(b.String(), ",") + "}"
	m := newMembers()
	for _, body := range []string{with(`{"a":` + object + `,"b":0`), with("[" + object + "," + object + "]"), with(`[` + object + `,{"a":0,"a":0}]`)} {
		_, err := Parse([]byte(body))
		if (err == nil) != strings.HasSuffix(body, object+"]}") {
			t.Errorf("got %v", err)
		}
	}
	m.begin()
	there := 0
	for i := range 3 * segmentSlots {
		if !m.add([]byte(fmt.Sprintf(`"%08d"`, i)), member{start: 1, end: 9}) {
			there++ // two names have the same hash, and the places are compared in another text
		}
	}
	if there > 5 {
		t.Errorf("%d names are there", there)
	}
	if m.taken < 3 {
		t.Errorf("%d segments", m.taken)
	}
	if m.reset(); m.taken != 0 || len(m.open)+len(m.listed) != 0 {
		t.Errorf("got %+v", m)
	}
}
