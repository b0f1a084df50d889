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

func newRecent() recent { return recent{texts: make(map[uint64][]byte), most: recentBytes} }

// add adds a record with a sequence number above all others, and forgets the oldest if there is no room.
func (r *recent) add(seq uint64, text []byte) {
	if len(r.texts) == 0 {
		r.oldest = seq
	}
	r.texts[seq] = text
	r.bytes += cap(text)
	for ; r.bytes > r.most; r.oldest++ {
		r.remove(r.oldest)
	}
}

// remove forgets a record, if it is here.
func (r *recent) remove(seq uint64) {
	r.bytes -= cap(r.texts[seq])
	delete(r.texts, seq)
}
