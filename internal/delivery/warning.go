package delivery

import "time"

// A warning is due while an attempt takes long. Nearly none is ever given, so they are used again.
type warning struct {
	timer *time.Timer
	try   *Try
}

func (f *Fleet) warnAfter(d time.Duration, t *Try) *warning {
	w, ok := f.warnings.Get().(*warning)
	if ok {
		w.try = t
		w.timer.Reset(d)
		return w
	}
	w = &warning{try: t}
	w.timer = time.AfterFunc(d, w.give)
	return w
}

// noWarning takes a warning back. One that is being given is left to itself; then it reports false.
func (f *Fleet) noWarning(w *warning) bool {
	if !w.timer.Stop() {
		return false
	}
	w.try = nil
	f.warnings.Put(w)
	return true
}

func (w *warning) give() {
	t, now := w.try, w.try.fleet.Clock.Now().wall
	handler := t.asked()
	if t.holds {
		t.fleet.standing.slow(t, handler, now)
	}
	t.hooks.Slow(t.Case, handler)
}
