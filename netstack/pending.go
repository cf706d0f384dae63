package netstack

import (
	"context"
	"maps"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/tcpip/header/parse"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"

	"github.com/seed94491740/tsnode/packet"
)

// Bounds of one PendingListener, of which no peer may have more than two thirds. A
// SYN beyond is answered with a reset (SVC-50).
const (
	maxPending = 8192        // connections that are being opened; section 6.1 of doc/protocol/node-services.md
	maxWaiting = 2 * backlog // of them, those that wait for AcceptPending
)

// A PendingListener is a listener whose connections wait to be completed: until
// then their peers do not know whether they are accepted (SVC-53).
type PendingListener struct {
	*Listener
	syns   *tcp.Forwarder
	queue  chan *Pending
	opened chan struct{} // holds a token when gVisor may have accepted a connection itself
	closed chan struct{}
	once   sync.Once

	mu      sync.Mutex // a SYN takes it, no other packet
	opening tally
	waiting tally // in queue, which has room for all of them
}

// A Pending is a connection that a peer wants to open.
type Pending struct {
	From netip.AddrPort // the peer
	To   netip.AddrPort // our address

	listener *PendingListener
	request  *Request // nil: it is open already
	conn     *Conn
}

// ListenPending is ListenTCP for connections that are to be completed only when it
// is known what becomes of them.
func (s *Stack) ListenPending(addr netip.AddrPort) (*PendingListener, error) {
	ln, err := s.ListenTCP(addr)
	if err != nil {
		return nil, err
	}
	p := newPendingListener(ln, maxPending, maxWaiting)
	p.Notify(p.wake)
	s.links[0].pending.add(p)
	return p, nil
}

func newPendingListener(ln *Listener, opening, waiting int) *PendingListener {
	p := &PendingListener{Listener: ln, queue: make(chan *Pending, waiting), opened: make(chan struct{}, 1), closed: make(chan struct{})}
	p.opening, p.waiting = newTally(opening), newTally(waiting)
	p.syns = tcp.NewForwarder(ln.stack.gv, 0, 2*opening, p.request)
	return p
}

// AcceptPending waits for the next connection; after Close it returns
// net.ErrClosed. The connections of the node with itself, and those in the place of
// one in TIME-WAIT, are open already.
func (p *PendingListener) AcceptPending() (*Pending, error) {
	for {
		if c, err := p.tryAccept(); err == nil {
			return &Pending{From: c.remote.AddrPort(), To: c.local.AddrPort(), conn: c}, nil
		}
		select {
		case c := <-p.queue:
			p.left(c)
			return c, nil
		case <-p.opened:
		case <-p.closed:
			return nil, opError("accept", "tcp", nil, p.addr, net.ErrClosed)
		}
	}
}

func (p *PendingListener) wake() {
	select {
	case p.opened <- struct{}{}:
	default:
	}
}

// Close ends AcceptPending and resets what waits for it, as Listener.Close does.
func (p *PendingListener) Close() error {
	p.once.Do(func() {
		p.stack.links[0].pending.remove(p)
		close(p.closed)
		p.Listener.Close()
	})
	for {
		select {
		case c := <-p.queue:
			p.left(c)
			c.Refuse()
		default:
			return nil
		}
	}
}

// request takes a SYN, on a goroutine of gVisor's.
func (p *PendingListener) request(syn *tcp.ForwarderRequest) {
	from, to := flowOfID(syn.ID())
	c := &Pending{From: from, To: to, listener: p}
	c.request = &Request{From: from, To: to, stack: p.stack, syn: syn, count: new(forwardCounters)}
	if !p.begin(c) {
		p.stack.count.tcpPendingBusy.Add(1)
		c.request.refuse()
		return
	}
	p.offer(c)
}

// begin counts a connection, if there is room for it and its peer has not had its
// share.
func (p *PendingListener) begin(c *Pending) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	from := c.From.Addr()
	return p.waiting.room(from) && p.opening.take(from) && p.waiting.take(from)
}

// left counts a connection out of the queue.
func (p *PendingListener) left(c *Pending) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waiting.give(c.From.Addr())
}

// ended counts a connection that is open, or will never be.
func (p *PendingListener) ended(c *Pending) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.opening.give(c.From.Addr())
}

// offer leaves a connection that was counted to AcceptPending.
func (p *PendingListener) offer(c *Pending) {
	p.queue <- c // never waits: begin has seen that there is room
	select {
	case <-p.closed: // perhaps too late for Close to see it
		p.Close()
	default:
	}
}

// Complete completes the handshake, which takes as long as the peer's last segment
// of it; the end of ctx ends it. It is called once at most, and not after Refuse.
func (p *Pending) Complete(ctx context.Context) (*Conn, error) {
	if p.request == nil {
		return p.conn, nil
	}
	defer p.listener.ended(p)
	c, err := p.request.Accept(ctx)
	if err != nil {
		return nil, err
	}
	return c.(*Conn), nil
}

// Refuse resets the connection. It is called once at most, and not after Complete.
func (p *Pending) Refuse() {
	if p.request == nil {
		p.conn.SetLinger(0)
		p.conn.Close()
		return
	}
	defer p.listener.ended(p)
	p.request.refuse()
}

// pendingListeners are those of a stack. It knows them by their functions only: what a
// program without any does not use is not linked.
type pendingListeners struct {
	take atomic.Pointer[func(pkt []byte) bool] // nil while there are none

	mu    sync.Mutex // held to change what follows
	begin synHandlers
}

// synHandlers begin connections, by the endpoints that they are for. They are
// replaced, never written to.
type synHandlers map[stack.TransportEndpoint]func(h *packet.Header, pkt []byte, id stack.TransportEndpointID)

func (l *pendingListeners) add(p *PendingListener) {
	l.change(p.stack, func(begin synHandlers) { begin[p.ep.(stack.TransportEndpoint)] = p.syn })
}

func (l *pendingListeners) remove(p *PendingListener) {
	l.change(p.stack, func(begin synHandlers) { delete(begin, p.ep.(stack.TransportEndpoint)) })
}

func (l *pendingListeners) change(s *Stack, edit func(synHandlers)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	begin := make(synHandlers)
	maps.Copy(begin, l.begin)
	edit(begin)
	l.begin = begin
	if len(begin) == 0 {
		l.take.Store(nil)
		return
	}
	take := func(pkt []byte) bool { return begin.take(s, pkt) }
	l.take.Store(&take)
}

// takes reports whether it has taken pkt: the SYN of a connection for one of the
// listeners.
func (l *pendingListeners) takes(pkt []byte) bool {
	take := l.take.Load()
	return take != nil && (*take)(pkt)
}

func (begin synHandlers) take(s *Stack, pkt []byte) bool {
	if seg := tcpHeader(pkt); seg == nil || seg[13]&(packet.SYN|packet.ACK) != packet.SYN {
		return false
	}
	var h packet.Header
	h.Parse(pkt)
	if !h.IsSYN() || !whole(&h, pkt) || !s.addresses.has(h.Dst.Addr()) {
		return false
	}
	id := idOf(h.Dst, h.Src)
	syn := begin[s.gv.FindTransportEndpoint(protocolOf(h.Dst.Addr()), tcp.ProtocolNumber, id, nicID)]
	if syn == nil {
		return false
	}
	syn(&h, pkt, id)
	return true
}

// syn begins a connection, or finds that it has begun already.
func (p *PendingListener) syn(h *packet.Header, pkt []byte, id stack.TransportEndpointID) {
	pb := parsed(h, pkt)
	defer pb.DecRef()
	if parse.TCP(pb) {
		p.syns.HandlePacket(id, pb)
	}
}
