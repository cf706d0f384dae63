package peer

import (
	"net/netip"
	"slices"
	"sync"
	"time"
)

// watchEvery is how often paths are looked at. It bounds the error of the times
// of PathChanges.
const watchEvery = 10 * time.Millisecond

// A PathChange says that packets to a peer take another path from a moment on.
type PathChange struct {
	At   time.Time
	Path Path
}

// A watch follows the paths to some peers. The zero watch is ready for use.
type watch struct {
	mu      sync.Mutex
	peers   []netip.Addr
	changes [][]PathChange // of each peer, the path it began with first
}

// run looks for changes until the process ends.
func (w *watch) run(m member) {
	for at := range time.Tick(watchEvery) {
		w.look(m, at)
	}
}

func (w *watch) look(m member, at time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.peers) == 0 {
		return
	}
	for i, path := range m.paths(w.peers) {
		if all := w.changes[i]; all[len(all)-1].Path != path {
			w.changes[i] = append(all, PathChange{at, path})
		}
	}
}

// of returns the changes of the path to a peer, which it follows from the first
// call on.
func (w *watch) of(m member, ip netip.Addr) []PathChange {
	w.mu.Lock()
	defer w.mu.Unlock()
	i := slices.Index(w.peers, ip)
	if i < 0 {
		i = len(w.peers)
		w.peers = append(w.peers, ip)
		w.changes = append(w.changes, []PathChange{{time.Now(), m.paths([]netip.Addr{ip})[0]}})
	}
	return slices.Clone(w.changes[i])
}
