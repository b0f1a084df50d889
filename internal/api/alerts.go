package api

import "net/http"

// AlertTest is what became of a test alert.
type AlertTest struct {
	Alert    int    `json:"alert"`    // the how manieth of the config, from 1
	Endpoint string `json:"endpoint"` // its host, as the config has it
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
