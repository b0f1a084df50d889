package console

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
)

//go:embed login.html
var loginHTML string

// A loginPage is what somebody sees who is not logged in.
type loginPage struct {
	texts  map[string]loginTexts // by language
	page   *template.Template
	prefix string
	once   bool
	policy string
}

// loginTexts are the sentences of the page in a language.
type loginTexts struct {
	Title, Hint, HintOnce, Token, Go, Working string
	Said                                      map[said]string
}

// said is what the page says to what was tried.
type said string

const (
	saidNothing said = ""
	saidWrong   said = "wrong"
	saidUsed    said = "used" // of a token that is good for once: it is wrong, or was used
	saidSlow    said = "slow"
	saidLost    said = "lost" // there was no answer
	saidOver    said = "over" // of a screen that somebody had open, or has a link to
)

func languages() map[string]loginTexts {
	return map[string]loginTexts{
		"en": {
			Title:    "green-api edge",
			Hint:     "Type the token of this console. Whoever runs the edge has set it.",
			HintOnce: "Open the link that the command printed. It lets one browser in, once.",
			Token:    "Token", Go: "Log in", Working: "Logging in…",
			Said: map[said]string{
				saidWrong: "This token is wrong.",
				saidUsed:  "This link was used already, or is of a console that has ended. Run the command once more for a new one.",
				saidSlow:  "Too many wrong tokens. Wait a moment and try again.",
				saidLost:  "The console does not answer.",
				saidOver:  "You have to log in. A restart ends all sessions.",
			},
		},
		"ru": { //nolint:gosec // sentences, and no password
			Title:    "green-api edge",
			Hint:     "Введите токен этой консоли. Его задал тот, кто запускает edge.",
			HintOnce: "Откройте ссылку, которую напечатала команда. Она впускает один браузер и один раз.",
			Token:    "Токен", Go: "Войти", Working: "Выполняется вход…",
			Said: map[said]string{
				saidWrong: "Неверный токен.",
				saidUsed:  "Эта ссылка уже использована или осталась от консоли, которая завершена. Запустите команду ещё раз, чтобы получить новую.",
				saidSlow:  "Слишком много неверных токенов. Подождите немного и попробуйте снова.",
				saidLost:  "Консоль не отвечает.",
				saidOver:  "Нужно войти. Перезапуск завершает все сеансы.",
			},
		},
	}
}

func newLoginPage(o Options) (*loginPage, error) {
	page, err := template.New("login").Parse(loginHTML)
	if err != nil {
		return nil, err
	}
	l := &loginPage{texts: languages(), page: page, prefix: o.Prefix, once: o.Access.Once}
	text, err := l.text("en", saidNothing, false)
	if err != nil {
		return nil, err
	}
	script, err := hashBetween(text, "<script>", "</script>")
	if err != nil {
		return nil, err
	}
	style, err := hashBetween(text, "<style>", "</style>")
	if err != nil {
		return nil, err
	}
	l.policy = "default-src 'none'; script-src " + script + "; style-src " + style + "; connect-src 'self'; form-action 'self'; " +
		"base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
	return l, nil
}

// hashBetween returns the hash of the only element that begins and ends so. A template changes what is in it: comments go.
func hashBetween(text []byte, open, closed string) (string, error) {
	if bytes.Count(text, []byte(open)) != 1 {
		return "", fmt.Errorf("login page: want one %s", open)
	}
	_, rest, _ := bytes.Cut(text, []byte(open))
	inside, _, _ := bytes.Cut(rest, []byte(closed))
	return hashOf(inside), nil
}

func (l *loginPage) text(language string, what said, again bool) ([]byte, error) {
	texts := l.texts[language]
	if l.once {
		texts.Hint = texts.HintOnce
	}
	wrong := saidWrong
	if l.once {
		wrong = saidUsed
	}
	var out bytes.Buffer
	err := l.page.Execute(&out, map[string]any{
		"Language": language, "Text": texts, "Prefix": l.prefix, "Said": texts.Said[what],
		"Wrong": texts.Said[wrong], "Slow": texts.Said[saidSlow], "Lost": texts.Said[saidLost], "Over": texts.Said[saidOver], "Again": again,
	})
	return out.Bytes(), err
}

// show answers with the page.
func (l *loginPage) show(w http.ResponseWriter, r *http.Request, status int, what said) {
	text, err := l.text(languageOf(r), what, r.Header.Get("Sec-Fetch-Site") == "cross-site")
	if err != nil {
		refuse(w, http.StatusInternalServerError, "the page cannot be shown")
		return
	}
	h := w.Header()
	h.Set("Content-Security-Policy", l.policy)
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Vary", "Accept-Language, Cookie")
	w.WriteHeader(status)
	_, _ = w.Write(text) // the client may be gone
}

// languageOf returns the language of ours that a browser likes best.
func languageOf(r *http.Request) string {
	best, language := 0.0, "en"
	for part := range strings.SplitSeq(r.Header.Get("Accept-Language"), ",") {
		tag, weight, weighted := strings.Cut(strings.TrimSpace(part), ";")
		primary, _, _ := strings.Cut(lower(strings.TrimSpace(tag)), "-")
		q := 1.0
		if weighted {
			var err error
			if q, err = strconv.ParseFloat(strings.TrimPrefix(strings.TrimSpace(weight), "q="), 64); err != nil {
				continue
			}
		}
		if (primary == "ru" || primary == "en") && q > best {
			best, language = q, primary
		}
	}
	return language
}

// A chance is what a token that is good for once has.
type chance struct {
	mu   sync.Mutex
	gone bool
}

// take reports whether the chance was still there.
func (c *chance) take() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	was := !c.gone
	c.gone = true
	return was
}

func (c *Console) isLogin(r *http.Request) bool {
	rel, below := c.relative(r)
	return c.byToken && below && rel == "login" && r.Method == http.MethodPost
}

// logIn lets in who has the token.
func (c *Console) logIn(w http.ResponseWriter, r *http.Request) {
	const mostTyped = 4 << 10
	asJSON := accepts(r, "application/json")
	fail := func(status int, what said, why string) {
		if asJSON {
			refuse(w, status, why)
			return
		}
		c.login.show(w, r, status, what)
	}
	typed, err := readForm(w, r, mostTyped)
	if err != nil {
		e := asFailure(err)
		fail(e.status, saidLost, e.Error())
		return
	}
	client := c.o.Client(r)
	if !c.o.Sessions.mayTry(client) {
		w.Header().Set("Retry-After", "1")
		fail(http.StatusTooManyRequests, saidSlow, "too many wrong tokens; try again in a second")
		return
	}
	if !c.isToken(strings.TrimSpace(typed.Get("token"))) || c.o.Access.Once && !c.once.take() {
		c.o.Refused(printable(client))
		what, why := saidWrong, "wrong token"
		if c.o.Access.Once {
			what, why = saidUsed, "wrong token, or used already"
		}
		fail(http.StatusUnauthorized, what, why)
		return
	}
	c.o.Sessions.wasRight(client)
	s := c.begin(w, r, c.o.Access.Name)
	defer s.leave()
	c.noteVisit(&call{w: w, r: r, s: s}, loggedIn)
	if asJSON {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	c.toPage(w)
}

// toPage leads a browser to the page.
func (c *Console) toPage(w http.ResponseWriter) {
	w.Header().Set("Location", c.o.Prefix)
	w.WriteHeader(http.StatusSeeOther)
}

// A failure is an error with the status to answer with.
type failure struct {
	status int
	why    string
}

func (e *failure) Error() string { return e.why }

func asFailure(err error) *failure {
	if f, ok := errors.AsType[*failure](err); ok {
		return f
	}
	return &failure{http.StatusInternalServerError, "no answer"}
}

// readTime is how long the body of a request may take.
const readTime = 20 * time.Second

// readForm returns the parameters in the body of a request.
func readForm(w http.ResponseWriter, r *http.Request, most int64) (url.Values, error) {
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Now().Add(readTime)) // not every writer has one
	var body bytes.Buffer
	if _, err := body.ReadFrom(http.MaxBytesReader(w, r.Body, most)); err != nil {
		if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
			return nil, &failure{http.StatusRequestEntityTooLarge, fmt.Sprintf("want a body of at most %d bytes", most)}
		}
		return nil, &failure{http.StatusRequestTimeout, "the body did not come"}
	}
	_ = rc.SetReadDeadline(time.Time{})
	kind, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
	if body.Len() > 0 && lower(strings.TrimSpace(kind)) != "application/x-www-form-urlencoded" {
		return nil, &failure{http.StatusUnsupportedMediaType, "want application/x-www-form-urlencoded"}
	}
	form, err := parse(body.String())
	if err != nil {
		return nil, &failure{http.StatusBadRequest, "body: want parameters as in a query"}
	}
	return form, nil
}

// parse parses parameters. url.ParseQuery takes 10,000 of them, and a choice of entries may name more.
func parse(text string) (url.Values, error) {
	all := make(url.Values)
	for pair := range strings.SplitSeq(text, "&") {
		one, err := url.ParseQuery(pair)
		if err != nil {
			return nil, err
		}
		for name, values := range one {
			all[name] = append(all[name], values...)
		}
	}
	return all, nil
}
