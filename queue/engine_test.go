package queue_test

import (
	"testing"

	"github.com/greenapi-community/caddy-green-api/queue"
	"github.com/greenapi-community/caddy-green-api/queue/queuetest"
)

// TestMemory: the engine in memory does what every engine does, so what holds over it holds over any.
func TestMemory(t *testing.T) {
	queuetest.Run(t, func(_ *testing.T, _ string, maxSize int64) queue.Store { return queuetest.NewMemory(maxSize) }, queuetest.Options{})
}
