package netstack

import (
	"sync"
	"sync/atomic"
	"weak"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

const (
	// lingerLimit is how many connections wait in TIME-WAIT. Each keeps about
	// 10 KiB for a minute.
	lingerLimit = 1024

	// lingerLooks is how many connections an addition looks at; more than one, so
	// that the queue gets shorter again.
	lingerLooks = 2
)

// lingering are the connections closed by this end, oldest first: those of which
// gVisor still keeps something, and some of which it does not.
type lingering struct {
	limit  int // of closed, in connections
	mu     sync.Mutex
	closed []weak.Pointer[tcp.Endpoint]
	cut    atomic.Uint64 // connections whose TIME-WAIT was cut short
}

// silenced owns the packets of connections that end without a word.
var silenced tcpip.PacketOwner = silence{}

// A silence is a packet owner whose packets the link takes and forgets.
type silence struct{}

func (silence) KUID() uint32 { return 0 }
func (silence) KGID() uint32 { return 0 }

// add notes a connection that was closed. If that makes too many, the oldest in
// TIME-WAIT end. gVisor would send an RST for each, but its peer has closed, too,
// and "respond with 'ok' and delete the TCB" is all that RFC 9293 section 3.10.5
// asks for in TIME-WAIT.
func (l *lingering) add(ep tcpip.Endpoint) {
	e, ok := ep.(*tcp.Endpoint)
	if !ok {
		return
	}
	for _, old := range l.push(e) {
		if old != nil {
			l.cut.Add(1)
			endQuietly(old)
		}
	}
}

// endQuietly ends a connection without a word to its peer.
func endQuietly(e *tcp.Endpoint) {
	e.LockUser()
	e.SetOwner(silenced)
	e.UnlockUser()
	e.Abort()
}

// push queues e and returns connections to end.
func (l *lingering) push(e *tcp.Endpoint) (over [lingerLooks]*tcp.Endpoint) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = append(l.closed, weak.Make(e))
	for i := 0; i < lingerLooks && len(l.closed) > l.limit; i++ {
		over[i] = l.oldest()
	}
	return over
}

// oldest takes the oldest connection out of the queue and returns it if it is in
// TIME-WAIT. One that still has something to send goes to the end.
func (l *lingering) oldest() *tcp.Endpoint {
	w := l.closed[0]
	l.closed = l.closed[1:]
	e := w.Value()
	if e == nil {
		return nil
	}
	switch e.EndpointState() {
	case tcp.StateTimeWait:
		return e
	case tcp.StateClose, tcp.StateError:
	default:
		l.closed = append(l.closed, w)
	}
	return nil
}
