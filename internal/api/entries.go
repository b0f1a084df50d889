package api

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"unicode/utf8"

	"go.uber.org/zap"

	"github.com/greenapi-community/caddy-green-api/quarantine"
)

// Entry is an entry as the API shows it: its body is a string, or in base64 if it is not UTF-8.
type Entry struct {
	quarantine.Entry
	Body       string `json:"body,omitempty"`
	BodyBase64 []byte `json:"body_base64,omitempty"`
	Marks      []Mark `json:"marks,omitzero"` // where its faults are in the body, if that was asked
}

// Show returns an entry as the API shows it.
func Show(e quarantine.Entry) Entry {
	shown := Entry{Entry: e}
	if utf8.Valid(e.Body) {
		shown.Body = string(e.Body)
	} else {
		shown.BodyBase64 = e.Body
	}
	shown.Entry.Body = nil
	return shown
}

// Bytes returns the body of a shown entry.
func (e Entry) Bytes() []byte {
	if e.BodyBase64 != nil {
		return e.BodyBase64
	}
	return []byte(e.Body)
}

// Header returns what the quarantine has kept of the entry's header.
func Header(e quarantine.Entry) http.Header {
	header := make(http.Header)
	for name, values := range e.Header {
		header[http.CanonicalHeaderKey(name)] = values
	}
	return header
}

// chosen parses the parameters of a request and opens the quarantine.
func (e *Edge) chosen(r *http.Request, options ...string) (p parameters, store *quarantine.Store, release func(), err error) {
	if p, err = e.parse(r, options...); err != nil {
		return p, nil, nil, err
	}
	store, release, err = e.Quarantine()
	return p, store, release, err
}

func (e *Edge) list(w http.ResponseWriter, r *http.Request) error {
	p, store, release, err := e.chosen(r, "body")
	if err != nil {
		return err
	}
	defer release()
	whole := p.says("body")
	out := answer(w)
	p.Unreadable = out.unreadable
	return out.end(p.Each(store, func(entry quarantine.Entry) error {
		if whole {
			full, err := store.Get(entry.ID)
			if errors.Is(err, quarantine.ErrNotFound) {
				return nil // deleted meanwhile
			}
			if err != nil {
				return out.unreadable(entry.ID, err)
			}
			entry = full
		}
		return out.write(Show(entry))
	}))
}

// show shows an entry, with its body unless body=false, and with the places of its faults if marks=true.
func (e *Edge) show(w http.ResponseWriter, r *http.Request) error {
	p, store, release, err := e.chosen(r, "body", "marks")
	if err != nil {
		return err
	}
	defer release()
	entry, err := store.Get(r.PathValue("id"))
	if errors.Is(err, quarantine.ErrNotFound) {
		return notFound(err)
	}
	if err != nil {
		return err
	}
	var marks []Mark
	if p.says("marks") {
		marks = Marks(entry)
	}
	if p.options.Get("body") == "false" {
		entry.Body = nil
	}
	shown := Show(entry)
	shown.Marks = marks
	return answer(w).write(shown)
}

// Deletion is the answer to a DELETE.
type Deletion struct {
	Deleted int      `json:"deleted"`
	Missing []string `json:"missing,omitempty"` // requested IDs that do not exist
}

// delete deletes entries and wipes their remains from the file.
func (e *Edge) delete(w http.ResponseWriter, r *http.Request) error {
	p, store, release, err := e.chosen(r, "all", optionDryRun)
	if err != nil {
		return err
	}
	defer release()
	if p.IsEmpty() && !p.says("all") {
		return badRequest(errors.New("nothing said of what to delete; want a filter, or all=true"))
	}
	if p.says(optionDryRun) {
		return p.dryRun(w, store, func(quarantine.Entry) bool { return true })
	}
	var ids []string
	if err := p.Each(store, func(entry quarantine.Entry) error {
		ids = append(ids, entry.ID)
		return nil
	}); err != nil {
		return err
	}
	done := Deletion{Missing: p.Missing(store)}
	if id := r.PathValue("id"); id != "" && slices.Contains(done.Missing, id) {
		return notFound(fmt.Errorf("entry %q: %w", id, quarantine.ErrNotFound))
	}
	done.Deleted, err = store.Delete(ids...)
	if err == nil { // this also wipes what others have deleted before
		err = store.Scrub()
	}
	if err != nil {
		return fmt.Errorf("%d of %d deleted: %w", done.Deleted, len(ids), err)
	}
	e.Log.Info("quarantine entries deleted", p.deletedFields(done.Deleted)...)
	return answer(w).write(done)
}

// mostLogged is how many values of a field a record lists.
const mostLogged = 100

// deletedFields describe what was deleted, without the requested chat, which is a phone number.
func (p *parameters) deletedFields(deleted int) []zap.Field {
	fields := []zap.Field{zap.Int("count", deleted)}
	for _, name := range p.Fields() {
		switch wanted := p.Values(name); {
		case name == "chat":
		case len(wanted) > mostLogged:
			fields = append(fields, zap.Int(name+"s", len(wanted)))
		default:
			fields = append(fields, zap.Strings(name, wanted))
		}
	}
	return fields
}
