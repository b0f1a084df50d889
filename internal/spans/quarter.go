package spans

import "time"

// A Quarter has so many slots of this length.
const (
	SlotLength = 15 * time.Second
	Slots      = 60
)

// A Quarter has a T for each slot of the last quarter of an hour. The zero value is ready to use.
type Quarter[T any] struct {
	slots [Slots]part[T] // the one of a number is at number % Slots
}

type part[T any] struct {
	number int64 // its time since 1970, in slot lengths
	of     T
}

func numberOf(now time.Time) int64 { return now.Unix() / int64(SlotLength/time.Second) }

// At returns what the slot of now has, which is the zero T at first.
func (q *Quarter[T]) At(now time.Time) *T {
	number := numberOf(now)
	s := &q.slots[number%Slots]
	if s.number != number {
		*s = part[T]{number: number}
	}
	return &s.of
}

// Each calls do with each slot that has anything, the oldest first; i is its place among the last Slots. It returns the
// end of the last slot, which is not over, in Unix seconds.
func (q *Quarter[T]) Each(now time.Time, do func(i int, of *T)) (until int64) {
	last := numberOf(now)
	for i := range Slots {
		number := last - Slots + 1 + int64(i)
		if s := &q.slots[number%Slots]; s.number == number {
			do(i, &s.of)
		}
	}
	return (last + 1) * int64(SlotLength/time.Second)
}
