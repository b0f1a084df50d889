package tell

import (
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
)

// Scanners logs once a minute how many strangers were refused, instead of one record each: any address on
// the internet is scanned all day.
type Scanners struct {
	Log *zap.Logger

	mu    sync.Mutex
	count int
	last  string // an address as an example
	timer *time.Timer
}

const scannersEvery = time.Minute

// Add counts a refused stranger.
func (s *Scanners) Add(client string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count++
	s.last = client
	if s.timer == nil {
		s.timer = time.AfterFunc(scannersEvery, s.Flush)
	}
}

// Flush logs the count. The next stranger starts the next minute.
func (s *Scanners) Flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
	if s.count > 0 {
		s.Log.Info("requests refused from addresses that are not allowed",
			zap.Int("count", s.count), zap.String("last_client_ip", outcome.Clip(s.last)), zap.String("reason", reason.IPNotAllowed))
	}
	s.count = 0
}
