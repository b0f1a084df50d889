package greenapi

import (
	"context"
	"sync"
	"time"
)

// heart shows that this process is alive, while it has a receiver.
var heart struct {
	mu     sync.Mutex
	owners int
	stop   context.CancelFunc
}

// holdHeart lets the heart beat until releaseHeart.
func holdHeart() {
	heart.mu.Lock()
	defer heart.mu.Unlock()
	if heart.owners++; heart.owners > 1 {
		return
	}
	var ctx context.Context
	ctx, heart.stop = context.WithCancel(context.Background())
	go func() {
		ticker := time.NewTicker(leasing.beat)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
				stores := make(map[*sharedStore]bool)
				eachReceiver(func(r *receiver) { stores[r.store()] = true })
				for s := range stores {
					_ = thisEdge.showLife(s) // whoever needs it to be fresh looks after it
				}
			}
		}
	}()
}

// releaseHeart gives the sign up with the last receiver.
func releaseHeart(s *sharedStore) {
	heart.mu.Lock()
	defer heart.mu.Unlock()
	if heart.owners--; heart.owners > 0 {
		return
	}
	heart.stop()
	thisEdge.takeLeave(s)
}
