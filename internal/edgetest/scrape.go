package edgetest

import (
	"io"
	"testing"
)

func ReaderText(t *testing.T, r io.Reader) string {
	t.Helper()
	text, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// Scrape returns the metrics of the running config, as Prometheus gets them.
func (e *Edge) Scrape() string {
	e.T.Helper()
	return ReadAllOf(e.T, "http://127.0.0.1:"+e.Port+"/metrics")
}

func ReadAllOf(t *testing.T, url string) string {
	t.Helper()
	response, err := Client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	return ReaderText(t, response.Body)
}
