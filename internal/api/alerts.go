package api

import "net/http"

// AlertTest is the result of a test alert.
type AlertTest struct {
	Alert    int    `json:"alert"`    // its number in the config, from 1
	Endpoint string `json:"endpoint"` // its host as in the config
	Error    string `json:"error"`    // "" if the endpoint took it
}

// testAlerts sends a test alert through each alert of the config.
func (e *Edge) testAlerts(w http.ResponseWriter, r *http.Request) error {
	if _, err := e.parse(r); err != nil {
		return err
	}
	out := answer(w)
	for _, test := range e.TestAlerts(r.Context()) {
		if err := out.write(test); err != nil {
			return out.end(err)
		}
	}
	return nil
}
