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

// noWarning takes a warning back. One that is being given is left to itself.
func (f *Fleet) noWarning(w *warning) {
	if w.timer.Stop() {
		w.try = nil
		f.warnings.Put(w)
	}
}

func (w *warning) give() { w.try.hooks.Slow(w.try.Case, w.try.asked()) }
