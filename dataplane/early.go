package dataplane

import (
	"encoding/binary"
	"sync"
	"time"

	"github.com/seed94491740/tsnode/dataplane/wireguard"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/transport"
)

const (
	maxEarly = 64 // initiations kept
	earlyFor = 10 * time.Second

	typeInitiation = 1
	initiationSize = 148 // wireguard.md section 1.1
)

// early keeps the newest handshake initiation of each sender behind a relay that
// is no peer yet. A node that has just joined may know us before the control
// server has told us of it; without this its first handshake would be lost, and
// its first connection would wait five seconds for the next (WG-97). The relay vouches
// for the sender's key, and the tunnel checks the message as any other when the
// peer has appeared. The zero value is ready for use.
type early struct {
	mu   sync.Mutex
	kept []earlyInitiation // oldest first
}

type earlyInitiation struct {
	from transport.Endpoint
	at   wireguard.Tick
	msg  [initiationSize]byte
}

// keep takes a copy of msg if it is an initiation; the oldest makes room.
func (e *early) keep(from transport.Endpoint, msg []byte, now wireguard.Tick) bool {
	if len(msg) != initiationSize || binary.LittleEndian.Uint32(msg) != typeInitiation {
		return false
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.remove(func(i *earlyInitiation) bool { return i.from.Key == from.Key })
	if len(e.kept) == maxEarly {
		e.kept = append(e.kept[:0], e.kept[1:]...)
	}
	e.kept = append(e.kept, earlyInitiation{from, now, [initiationSize]byte(msg)})
	return true
}

// take removes and returns the initiations of those that are peers now, and
// forgets those that are too old.
func (e *early) take(known func(key.NodePublic) bool, now wireguard.Tick) (taken []earlyInitiation) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.remove(func(i *earlyInitiation) bool {
		old := now-i.at > wireguard.Tick(earlyFor)
		if !old && known(i.from.Key) {
			taken = append(taken, *i)
			return true
		}
		return old
	})
	return taken
}

// remove removes what drop says; e.mu is held.
func (e *early) remove(drop func(*earlyInitiation) bool) {
	kept := e.kept[:0]
	for i := range e.kept {
		if !drop(&e.kept[i]) {
			kept = append(kept, e.kept[i])
		}
	}
	clear(e.kept[len(kept):])
	e.kept = kept
}

// welcome hands the tunnel the initiations of peers that it knows by now.
func (d *Dataplane) welcome() {
	known := func(k key.NodePublic) bool { return d.engine.Peer(k) != nil }
	for _, i := range d.early.take(known, d.engine.Now()) {
		src := wireguard.Source{Region: i.from.Region, Key: i.from.Key}
		d.engine.Handshake(&src, i.msg[:])
	}
}
