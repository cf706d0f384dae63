package disco

import (
	"sync"
	"time"

	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/transport"
)

// An event changes path state. Only Serve applies it.
type event interface{ apply(*paths, time.Time) }

type (
	dataSent    struct{ peer key.NodePublic }
	unreachable struct {
		peer key.NodePublic
		to   transport.Endpoint
	}
	learned struct {
		peer  key.NodePublic
		disco key.DiscoPublic
	}
	heardFrom struct {
		peer key.NodePublic
		from transport.Endpoint
	}
	rebound struct{}
	asked   struct {
		peer     key.NodePublic
		size     int
		question *question
	}
	echoed struct {
		echo
		latency time.Duration
	}
)

func (e *dataSent) apply(st *paths, now time.Time)  { st.onData(e.peer, now) }
func (e *unreachable) apply(st *paths, _ time.Time) { st.onUnreachable(e.peer, e.to) }
func (e *learned) apply(st *paths, now time.Time)   { st.onLearned(e.peer, e.disco, now) }
func (e *heardFrom) apply(st *paths, now time.Time) { st.onHeardFrom(e.peer, e.from, now) }
func (rebound) apply(st *paths, now time.Time)      { st.onRebound(now) }
func (e *asked) apply(st *paths, now time.Time)     { st.onQuestion(e.peer, e.size, e.question, now) }
func (e *echoed) apply(st *paths, now time.Time)    { st.onEcho(e.peer, e.to, e.latency, now) }

// sendingPool has the one event that comes all the time.
var sendingPool = sync.Pool{New: func() any { return new(dataSent) }}

func free(e event) {
	if d, ok := e.(*dataSent); ok {
		sendingPool.Put(d)
	}
}

// usualFrame holds in bytes all frames but pings that probe large MTUs.
const usualFrame = 1536

// A received is a frame on its way from an underlay.
type received struct {
	from    transport.Endpoint
	control bool
	n       int
	usual   [usualFrame]byte
	large   []byte // holds a frame that does not fit usual
}

var receivedPool = sync.Pool{New: func() any { return new(received) }}

func newReceived(from transport.Endpoint, control bool, frame []byte) *received {
	f := receivedPool.Get().(*received)
	f.from, f.control, f.large = from, control, nil
	if f.n = copy(f.usual[:], frame); f.n < len(frame) {
		f.large = append([]byte(nil), frame...)
	}
	return f
}

// frame is valid until free.
func (f *received) frame() []byte {
	if f.large != nil {
		return f.large
	}
	return f.usual[:f.n]
}

func (f *received) free() {
	f.large = nil
	receivedPool.Put(f)
}
