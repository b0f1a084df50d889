package greenapi

import (
	"context"
	"sync"
	"time"
)

// heart shows that this process is alive, while it has a receiver. One that was told to stop is its
// owner as long as it has a notification in hand.
var heart = struct {
	mu     sync.Mutex
	owners map[*receiver]bool
	stop   context.CancelFunc
}{owners: make(map[*receiver]bool)}

// holdHeart lets the heart beat until releaseHeart.
func holdHeart(r *receiver) {
	heart.mu.Lock()
	defer heart.mu.Unlock()
	heart.owners[r] = true
	if len(heart.owners) > 1 {
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
				for s := range storesInUse() {
					_ = thisEdge.showLife(s) // whoever needs it to be fresh looks after it
				}
			}
		}
	}()
}

// storesInUse are those in which an owner has its lease, or is about to.
func storesInUse() map[*sharedStore]bool {
	heart.mu.Lock()
	defer heart.mu.Unlock()
	stores := make(map[*sharedStore]bool)
	for r := range heart.owners {
		stores[r.store()] = true
	}
	return stores
}

// releaseHeart gives the sign up with the last receiver.
func releaseHeart(r *receiver) {
	heart.mu.Lock()
	defer heart.mu.Unlock()
	delete(heart.owners, r)
	if len(heart.owners) > 0 {
		return
	}
	heart.stop()
	thisEdge.takeLeave(r.store())
}
