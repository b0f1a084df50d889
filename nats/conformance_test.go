package nats

import (
	"testing"

	"github.com/greenapi-community/caddy-green-api/queue"
	"github.com/greenapi-community/caddy-green-api/queue/queuetest"
)

func TestConformance(t *testing.T) {
	conform(t, startServers(t, 1, ""))
}

func TestConformanceOfCluster(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a cluster")
	}
	conform(t, startServers(t, 3, ""))
}

func conform(t *testing.T, servers []*server) {
	t.Helper()
	queuetest.Run(t, func(t *testing.T, dir string, maxSize int64) queue.Store {
		o := options(servers, digest(dir, nil, ""))
		o.MaxSize, o.Partitions = maxSize, 2
		return openStore(t, o)
	}, queuetest.Options{Durable: true, PerInstance: 200, Lags: true})
}
