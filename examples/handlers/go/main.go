// Command go is a handler behind the edge: it writes each notification to a file, and then answers 200.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"os/signal"
	"regexp"
	"strconv"
	"syscall"
)

var lineEnds = regexp.MustCompile(`[\r\n]+`)

func keep(body []byte) error {
	file, err := os.OpenFile(cmp.Or(os.Getenv("FILE"), "notifications.jsonl"), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer file.Close()
	most, err := strconv.ParseInt(cmp.Or(os.Getenv("MAX_BYTES"), "67108864"), 10, 64)
	if info, problem := file.Stat(); err != nil || problem != nil || info.Size()+int64(len(body)) > most {
		return errors.Join(err, problem, errors.New("full: move the file away and work on it"))
	}
	// Write a newline on both sides: then a line that a full disk cut short spoils no other one.
	if _, err := fmt.Fprintf(file, "\n%s\n", lineEnds.ReplaceAll(body, []byte(" "))); err != nil {
		return err
	}
	return file.Sync()
}

func main() {
	server := &http.Server{Addr: cmp.Or(os.Getenv("ADDRESS"), "127.0.0.1:9001"), ReadHeaderTimeout: 10e9}
	server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err == nil {
			err = keep(body)
		}
		if err != nil { // not now: the edge asks another handler, or this one again
			log.Print(err)
			w.Header().Set("Retry-After", "5")
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	stopped, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	finished := make(chan error)
	context.AfterFunc(stopped, func() { finished <- server.Shutdown(context.Background()) })
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		log.Fatal(err)
	}
	if err := <-finished; err != nil { // what was in hand has been answered
		log.Print(err)
	}
}
