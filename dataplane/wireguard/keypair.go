package wireguard

import (
	"crypto/cipher"
	"sync"
	"sync/atomic"

	"golang.zx2c4.com/wireguard/replay"
)

// A keypair is the two transport keys of one handshake. It is published in the
// index table, so everything the fast path touches is immutable, atomic or
// guarded by recv.
type keypair struct {
	_         noCopy
	session   *session
	local     uint32 // index the peer sends to
	remote    uint32 // index we send to
	initiator bool   // we started the handshake
	born      Tick
	rekeyAt   Tick // as initiator: sending at or after this wants a handshake; WG-40

	seal    cipher.AEAD
	counter atomic.Uint64 // next unused send counter; WG-27

	// unconfirmed is set while the keypair is a responder's next: the first
	// authenticated packet on it clears the flag and raises eventConfirmed.
	unconfirmed atomic.Bool

	// wanted is set once a rekey was asked for on behalf of this keypair.
	wanted atomic.Bool

	recv struct {
		sync.Mutex
		open   cipher.AEAD
		replay replay.Filter // WG-29
		order  order         // WG-99
	}
}

// noCopy makes go vet refuse copies of a keypair (wireguard.md section 10.1,
// row 2).
type noCopy struct{}

func (*noCopy) Lock()   {}
func (*noCopy) Unlock() {}

// acceptable reports whether packets may still be received under kp: it is at
// most RejectAfterTime old (WG-31).
func (kp *keypair) acceptable(now Tick) bool { return now-kp.born <= Tick(rejectAfterTime) }

// sendable reports whether kp is young enough to send under and has n counters
// left (WG-27, WG-31).
func (kp *keypair) sendable(now Tick, n int) bool {
	return now-kp.born < Tick(rejectAfterTime) && kp.counter.Load() <= rejectAfterMessages-uint64(n)
}

// reserve takes n counters, the first of which it returns. They are spent
// whatever becomes of them: a counter is the nonce and MUST NOT be used twice
// (WG-27). ok is false when the keypair has no n counters left.
func (kp *keypair) reserve(n int) (first uint64, ok bool) {
	if kp.counter.Load() > rejectAfterMessages-uint64(n) {
		return 0, false
	}
	last := kp.counter.Add(uint64(n))
	return last - uint64(n), last <= rejectAfterMessages
}
