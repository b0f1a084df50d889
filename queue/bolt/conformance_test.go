package bolt

import (
	"testing"

	"github.com/greenapi-community/caddy-green-api/queue"
	"github.com/greenapi-community/caddy-green-api/queue/queuetest"
)

func TestConformance(t *testing.T) {
	queuetest.Run(t, func(t *testing.T, dir string, maxSize int64) queue.Store {
		s, err := Open(dir, maxSize)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}, queuetest.Options{Durable: true})
}
