package peer

import (
	"net/netip"
	"sync"
	"time"
)

// watchEvery is how often a path is looked at. It bounds the error of the times
// of PathChanges.
const watchEvery = 5 * time.Millisecond

// A PathChange says that packets to a peer take another path from a moment on.
type PathChange struct {
	At   time.Time
	Path Path
}

// A watch follows the path to one peer until the process ends.
type watch struct {
	mu      sync.Mutex
	changes []PathChange
}

// newWatch notes the path of now and each change.
func newWatch(m member, ip netip.Addr) *watch {
	w := &watch{changes: []PathChange{{time.Now(), m.path(ip)}}}
	go func() {
		last := w.changes[0].Path
		for at := range time.Tick(watchEvery) {
			if p := m.path(ip); p != last {
				last = p
				w.add(PathChange{at, p})
			}
		}
	}()
	return w
}

func (w *watch) add(c PathChange) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.changes = append(w.changes, c)
}

// list returns a copy of the changes so far.
func (w *watch) list() []PathChange {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]PathChange(nil), w.changes...)
}
