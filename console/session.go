package console

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// Limits of sessions.
const (
	idleTime     = time.Hour      // without a request and without a stream
	sessionTime  = 12 * time.Hour // in all
	mostSessions = 512
	mostOfOne    = 32 // of one user, or with one token

	mostFailures = 5    // to log in, a second, of addresses that have failed before
	mostGuessers = 4096 // that are listed in an hour; beyond, whoever tries counts as one
)

type digest = [sha256.Size]byte

// Sessions are those who are logged in. They may serve several consoles, one after another or beside each other: a session
// of one is none of another. They are in memory only.
type Sessions struct {
	key digest // of this process: what is digested with it tells nothing

	mu       sync.Mutex
	all      map[digest]*session       // by what their ID digests to: who reads the memory cannot log in
	failures int                       // to log in
	since    time.Time                 // that many since then
	guessers map[netip.Prefix]struct{} // where a login has failed lately
	listed   time.Time                 // since when they are listed
}

// A session is somebody who is logged in.
type session struct {
	of      *Sessions
	name    digest // of its ID
	realm   digest // what it is of
	user    string
	from    netip.Prefix // network
	again   bool         // the user had another one from there when it began
	began   time.Time
	context context.Context
	end     context.CancelFunc

	// With the mutex of the Sessions.
	used   time.Time
	inHand int // requests
	phones bool
}

// NewSessions returns sessions for consoles that are made one after another, or serve beside each other.
func NewSessions() *Sessions {
	s := &Sessions{all: make(map[digest]*session)}
	_, _ = rand.Read(s.key[:]) // never fails
	return s
}

// digest digests a secret.
func (s *Sessions) digest(parts ...string) (d digest) {
	mac := hmac.New(sha256.New, s.key[:])
	for _, part := range parts {
		sum := sha256.Sum256([]byte(part))
		_, _ = mac.Write(sum[:]) // never fails
	}
	mac.Sum(d[:0])
	return d
}

// realmOf returns what the sessions of a console have in common: once its token is another, they are over.
func (s *Sessions) realmOf(prefix string, a Access) digest {
	kind := "token"
	switch {
	case a.User != nil:
		kind = "user"
	case a.Off:
		kind = "off"
	}
	return s.digest(prefix, kind, a.Token)
}

// begin begins a session, and returns its ID, which is kept nowhere.
func (s *Sessions) begin(realm digest, user, client string) (id string, begun *session) {
	id = rand.Text() + rand.Text() // 260 bits
	now := time.Now()
	begun = &session{of: s, name: s.digest(id), realm: realm, user: user, from: networkOf(client), began: now, used: now, inHand: 1}
	begun.context, begun.end = context.WithDeadline(context.Background(), now.Add(sessionTime))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.makeRoom(begun, now)
	s.all[begun.name] = begun
	return id, begun
}

// makeRoom ends what is over, and the session that was not used for longest if there are too many.
func (s *Sessions) makeRoom(newest *session, now time.Time) {
	var oldest, oldestOfOne *session
	ofOne := 0
	for _, other := range s.all {
		if other.isOver(now) {
			s.drop(other)
			continue
		}
		if oldest == nil || other.used.Before(oldest.used) {
			oldest = other
		}
		if other.realm == newest.realm && other.user == newest.user {
			newest.again = newest.again || other.from == newest.from
			if ofOne++; oldestOfOne == nil || other.used.Before(oldestOfOne.used) {
				oldestOfOne = other
			}
		}
	}
	switch {
	case ofOne >= mostOfOne:
		s.drop(oldestOfOne)
	case len(s.all) >= mostSessions:
		s.drop(oldest)
	}
}

// drop ends a session and its streams.
func (s *Sessions) drop(one *session) {
	delete(s.all, one.name)
	one.end()
}

func (one *session) isOver(now time.Time) bool {
	return now.Sub(one.began) >= sessionTime || one.inHand == 0 && now.Sub(one.used) >= idleTime
}

// enter returns the session with an ID, and nil if there is none. Who gets one has to leave it.
func (s *Sessions) enter(id string, realm digest, user string) *session {
	name := s.digest(id)
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	one := s.all[name]
	if one == nil || one.realm != realm || one.user != user {
		return nil
	}
	if one.isOver(now) {
		s.drop(one)
		return nil
	}
	one.used = now
	one.inHand++
	return one
}

// leave says that a request is answered. A stream is one request, so that a session in which one is open is in use.
func (one *session) leave() {
	one.of.mu.Lock()
	defer one.of.mu.Unlock()
	one.inHand--
	one.used = time.Now()
}

// logOut ends a session and its streams.
func (one *session) logOut() {
	one.of.mu.Lock()
	defer one.of.mu.Unlock()
	one.of.drop(one)
}

func (one *session) seesPhones() bool {
	one.of.mu.Lock()
	defer one.of.mu.Unlock()
	return one.phones
}

func (one *session) showPhones(show bool) {
	one.of.mu.Lock()
	defer one.of.mu.Unlock()
	one.phones = show
}

// mayTry reports whether a token may be looked at now, and counts it as one that is wrong. Those who fail share a few tries a
// second. Who has not failed is not held up by them.
func (s *Sessions) mayTry(client string) bool {
	from := networkOf(client)
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if now.Sub(s.since) >= time.Second {
		s.since, s.failures = now, 0
	}
	if s.guessers == nil || now.Sub(s.listed) >= time.Hour {
		s.listed, s.guessers = now, make(map[netip.Prefix]struct{})
	}
	_, again := s.guessers[from]
	if (again || len(s.guessers) >= mostGuessers) && s.failures >= mostFailures {
		return false
	}
	if len(s.guessers) < mostGuessers {
		s.guessers[from] = struct{}{}
	}
	s.failures++
	return true
}

// networkOf returns what one client may have all of: its address, or the /64 of one of IPv6.
func networkOf(client string) netip.Prefix {
	address, err := netip.ParseAddr(client)
	if err != nil {
		return netip.Prefix{}
	}
	address = address.Unmap().WithZone("")
	bits := address.BitLen()
	if address.Is6() {
		bits = 64
	}
	return netip.PrefixFrom(address, bits).Masked()
}

// wasRight takes back what mayTry has counted.
func (s *Sessions) wasRight(client string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.guessers, networkOf(client))
	s.failures = max(0, s.failures-1)
}

// cookieSuffix returns how the name of a console's cookie ends: a browser sends the cookies of one port to all ports of a
// name, and those of a path to the paths below it.
func cookieSuffix(host, prefix string) string {
	sum := sha256.Sum256([]byte(portOf(host) + prefix))
	return hex.EncodeToString(sum[:4])
}

// cookieName returns the name of the cookie, whose beginning binds it where a browser can: to HTTPS, and to one host.
func (c *Console) cookieName(r *http.Request) string {
	switch name := "green_api_console_" + c.cookie; {
	case r.TLS == nil:
		return name
	case c.o.Prefix == "/":
		return "__Host-" + name
	default:
		return "__Secure-" + name
	}
}

func (c *Console) setCookie(w http.ResponseWriter, r *http.Request, id string) {
	cookie := &http.Cookie{ //nolint:gosec // Secure where there is TLS: the command has none
		Name: c.cookieName(r), Value: id, Path: c.o.Prefix, HttpOnly: true, SameSite: http.SameSiteStrictMode, Secure: r.TLS != nil,
	}
	if id == "" {
		cookie.MaxAge = -1
	}
	http.SetCookie(w, cookie)
}

// known returns the session that a request belongs to, nil if it has none.
func (c *Console) known(r *http.Request, user string) *session {
	for i, cookie := range r.CookiesNamed(c.cookieName(r)) {
		if i == 4 {
			break
		}
		if s := c.o.Sessions.enter(cookie.Value, c.realm, user); s != nil {
			return s
		}
	}
	return nil
}

// begin begins a session for a request, which is in hand with it. One that it already had ends: an ID that somebody
// has planted is worth nothing.
func (c *Console) begin(w http.ResponseWriter, r *http.Request, user string) *session {
	if before := c.known(r, user); before != nil {
		before.logOut()
		before.leave()
	}
	id, s := c.o.Sessions.begin(c.realm, user, c.o.Client(r))
	c.setCookie(w, r, id)
	return s
}

// isToken compares a token in a time that tells nothing of it.
func (c *Console) isToken(token string) bool {
	got := c.o.Sessions.digest(token)
	return hmac.Equal(got[:], c.want[:])
}

// hashOf returns the hash of a text for a Content-Security-Policy.
func hashOf(text []byte) string {
	sum := sha256.Sum256(text)
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}
