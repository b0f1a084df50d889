package bolt

// recent has the records put last that are still there, so that what is delivered at once need not be read from the
// file.
type recent struct {
	texts  map[uint64][]byte // by sequence number
	bytes  int
	most   int    // recentBytes, but for tests
	oldest uint64 // no record before it is here
}

// recentBytes is how much memory they take at most, without what the map needs.
const recentBytes = 4 << 20

// recentSpan is how far back they go at most. Without it, one record that stays would keep oldest where it is, and a later
// add would have to pass all numbers since.
const recentSpan = 1 << 16

func newRecent() recent { return recent{texts: make(map[uint64][]byte), most: recentBytes} }

// add adds a record with a sequence number above all others, and forgets the oldest if there is no room.
func (r *recent) add(seq uint64, text []byte) {
	if len(r.texts) == 0 || seq-r.oldest > 2*recentSpan { // as after many that are not in one piece
		clear(r.texts)
		r.bytes, r.oldest = 0, seq
	}
	r.texts[seq] = text
	r.bytes += cap(text)
	for ; r.bytes > r.most || seq-r.oldest > recentSpan; r.oldest++ {
		r.remove(r.oldest)
	}
}

// remove forgets a record, if it is here.
func (r *recent) remove(seq uint64) {
	r.bytes -= cap(r.texts[seq])
	delete(r.texts, seq)
}
