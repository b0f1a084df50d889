package proxy

import (
	"context"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/greenapi-community/caddy-green-api/internal/delivery"
)

// TestClassify: reverse_proxy answers 499 when its request was canceled, which here only the end of the
// attempt does.
func TestClassify(t *testing.T) {
	live, over := t.Context(), deadContext(t)
	for _, test := range []struct {
		name   string
		ctx    context.Context
		status int
		err    error
		unsent bool
		want   delivery.Result
	}{
		{"499", live, 499, nil, false, delivery.BrokenOff},
		{"as an error", live, 0, caddyhttp.Error(499, context.Canceled), false, delivery.BrokenOff},
		{"before it was sent", live, 499, nil, true, delivery.NotNow},
		{"at the end of the attempt", over, 499, nil, false, delivery.TimedOut},
		{"another 4xx", live, 418, nil, false, delivery.RefusedByIt},
		{"a 2xx at the end of the attempt", over, 200, nil, false, delivery.TimedOut},
		{"an answer", live, 200, nil, true, delivery.Taken},
	} {
		if got := classify(test.ctx, test.status, test.err, true, test.unsent); got.Result != test.want {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
}

func deadContext(t *testing.T) context.Context {
	ctx, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	t.Cleanup(cancel)
	return ctx
}
