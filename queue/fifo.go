package queue

// fifo is a first-in-first-out list.
type fifo[T any] struct {
	items []T
	head  int // index of the first one
}

func (f *fifo[T]) len() int { return len(f.items) - f.head }

func (f *fifo[T]) push(item T) { f.items = append(f.items, item) }

// front returns a pointer to the first item, valid until the next push or pop. There must be one.
func (f *fifo[T]) front() *T { return &f.items[f.head] }

func (f *fifo[T]) pop() T {
	item := f.items[f.head]
	var none T
	f.items[f.head] = none
	f.head++
	if f.head*2 >= len(f.items) { // each item is moved at most once on average
		n := copy(f.items, f.items[f.head:])
		clear(f.items[n:])
		f.items, f.head = f.items[:n], 0
		if cap(f.items) > 64 && n < cap(f.items)/8 { // a backlog is over
			f.items = append(make([]T, 0, 2*n), f.items...)
		}
	}
	return item
}

// all returns the items in their order. They share the list's memory.
func (f *fifo[T]) all() []T { return f.items[f.head:] }
