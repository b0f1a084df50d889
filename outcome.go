package greenapi

import (
	"context"
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/notification"
)

// A visit is a notification together with the request that brought it.
type visit struct {
	outcome.Case
	w       http.ResponseWriter
	r       *http.Request
	readOff bool // the body of a refused request was read to its end

	way proxyWay // to the handlers
}

func newVisit(w http.ResponseWriter, r *http.Request) *visit {
	client, _ := caddyhttp.GetVar(r.Context(), caddyhttp.ClientIPVarKey).(string)
	return &visit{w: w, r: r, Case: outcome.Case{
		Kind:   notification.KindNone,
		Client: client, Host: r.Host, URI: r.RequestURI, Header: r.Header, Started: time.Now(), Admitted: true, N: new(notification.Notification),
	}}
}

// placeholders sets what is known of the notification, for matchers and handlers further on.
func (v *visit) placeholders() {
	repl := replacer(v.r.Context())
	repl.Set("http.green_api.type", v.N.Type)
	repl.Set("http.green_api.message", v.N.Message)
	repl.Set("http.green_api.instance", v.N.Instance)
	repl.Set("http.green_api.chat", v.N.Chat)
	repl.Set("http.green_api.id", v.N.ID)
}

func replacer(ctx context.Context) *caddy.Replacer {
	return ctx.Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
}
