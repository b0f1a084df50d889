package api

import (
	"errors"
	"fmt"
	"net/http"
)

// Fit is whether an instance's settings fit the edge.
type Fit struct {
	Instance string  `json:"instance"`
	Block    string  `json:"block"`    // that its notifications reach, "" for none
	Findings []Unfit `json:"findings"` // why not; none if they fit
}

// Unfit is a reason why an instance's settings do not fit, in addition to no_token, bad_token and
// instance_not_allowed. Scripts rely on the texts.
type Unfit string

// Why an instance's settings do not fit.
const (
	NoURL    Unfit = "no_url"
	BadURL   Unfit = "bad_url"
	HTTPURL  Unfit = "http_url"
	NoBlock  Unfit = "no_block"
	Received Unfit = "received"
)

// fit returns whether settings fit the edge. They are in the body, because the token is a secret.
func (e *Edge) fit(w http.ResponseWriter, r *http.Request) error {
	settings, err := parametersOf(r)
	if err != nil {
		return badRequest(err)
	}
	for name, values := range settings {
		if name != "instance" && name != "url" && name != "token" {
			return badRequest(errors.New("unknown parameter; want instance, url and token"))
		}
		if len(values) > 1 {
			return badRequest(fmt.Errorf("%s: more than one", name))
		}
	}
	if settings.Get("instance") == "" {
		return badRequest(fmt.Errorf("instance: %w", ErrEmptyValue))
	}
	fit := e.Fit(settings.Get("instance"), settings.Get("url"), settings.Get("token"))
	if fit.Findings == nil {
		fit.Findings = []Unfit{}
	}
	return answer(w).write(fit)
}
