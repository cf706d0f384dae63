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
	}
}

// noCopy makes go vet refuse copies of a keypair (wireguard.md section 10.1,
// row 2).
type noCopy struct{}

func (*noCopy) Lock()   {}
func (*noCopy) Unlock() {}
