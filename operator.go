package greenapi

import (
	"github.com/caddyserver/caddy/v2"

	"github.com/greenapi-community/caddy-green-api/internal/api"
	"github.com/greenapi-community/caddy-green-api/internal/watch"
)

// operator is what the operator wants to know, and is told, over config reloads.
type operator struct {
	seen   watch.Instances
	alerts alertDesk
	events eventDesk
	daily  watch.Daily
	clock  wallClock
	silent watch.Silences
	totals totals

	replays api.Replays
}

// operators holds the one operator of the process.
var operators = caddy.NewUsagePool()

const theOperator = "operator"

func holdOperator() *operator {
	shared, _, _ := operators.LoadOrNew(theOperator, func() (caddy.Destructor, error) { // never fails
		return new(operator), nil
	})
	return shared.(*operator)
}

func releaseOperator() error {
	_, err := operators.Delete(theOperator)
	return err
}

// Destruct sends what is left to tell, at the end of the process or of the last config with a
// green_api in it.
func (o *operator) Destruct() error {
	o.alerts.close()
	o.events.close()
	return nil
}
