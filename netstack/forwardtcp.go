package netstack

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"syscall"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/seed94491740/tsnode/packet"
)

// A Request is a connection that a peer wants to open with a host behind this
// node. It waits for its answer until it is accepted, or the function that serves
// it returns. Its SYN may come again meanwhile; there is one Request all the same
// (SVC-50).
type Request struct {
	From netip.AddrPort // the peer
	To   netip.AddrPort // the host

	stack *Stack
	once  sync.Once
	syn   *tcp.ForwarderRequest
	count *forwardCounters
}

// request begins to serve a SYN, on a goroutine of gVisor's. One too many is
// answered with a reset (SVC-50).
func (w *forwarding) request(syn *tcp.ForwarderRequest) {
	from, to := flowOfID(syn.ID())
	r := &Request{From: from, To: to, stack: w.stack, syn: syn, count: &w.forwarder.count}
	fl := &forwarded{kind: forwardTCP, proto: packet.TCP, from: from, to: to}
	serve := func(ctx context.Context) {
		defer r.refuse()
		w.forwarder.config.TCP(ctx, r)
	}
	if err := w.begin(fl, serve); err != nil {
		r.complete(true)
	}
}

// flowOfID returns the ends of a flow that gVisor names.
func flowOfID(id stack.TransportEndpointID) (from, to netip.AddrPort) {
	return addrPort(tcpip.FullAddress{Addr: id.RemoteAddress, Port: id.RemotePort}),
		addrPort(tcpip.FullAddress{Addr: id.LocalAddress, Port: id.LocalPort})
}

// Accept completes the handshake, which takes as long as the peer's last segment
// of it; the end of ctx ends it. It is called once at most. The connection is a
// *Conn.
func (r *Request) Accept(ctx context.Context) (net.Conn, error) {
	if !r.stack.budget.accepts() {
		r.refuse()
		return nil, r.fail(syscall.ENOBUFS)
	}
	if err := ctx.Err(); err != nil {
		r.refuse()
		return nil, r.fail(err)
	}
	var wq waiter.Queue
	stop := context.AfterFunc(ctx, func() {
		r.stack.abort(r.From, r.To)
		wq.Notify(waiter.WritableEvents) // the handshake waits for that only
	})
	ep, err := r.syn.CreateEndpoint(&wq)
	if err != nil {
		stop()
		r.refuse()
		return nil, r.fail(errorOf(err))
	}
	r.complete(false)
	if !stop() { // before there was a connection to reset, perhaps
		ep.Abort()
		r.count.failed.Add(1)
		return nil, r.fail(ctx.Err())
	}
	r.count.tcp.Add(1)
	return newConn(r.stack, ep, &wq, r.From), nil
}

// abort resets the connection that a peer has with a host behind the node, if there
// is one, whether or not its handshake is completed; who waits for that does not
// hear of it.
func (s *Stack) abort(from, to netip.AddrPort) {
	ep := s.gv.FindTransportEndpoint(protocolOf(to.Addr()), tcp.ProtocolNumber, idOf(to, from), nicID)
	if f, ok := flowOf(ep); ok && f.Remote == from {
		f.endpoint.SocketOptions().SetLinger(tcpip.LingerOption{Enabled: true}) // or a handshake would end without a reset
		f.Abort()
	}
}

func (r *Request) fail(err error) error {
	return opError("accept", "tcp", nil, net.TCPAddrFromAddrPort(r.From), err)
}

// refuse resets what has not been accepted.
func (r *Request) refuse() {
	if r.complete(true) {
		r.count.failed.Add(1)
	}
}

// maxResetting is how many resets may be under way. Each holds a goroutine of gVisor's
// until locks are free for which a flood of SYNs contends, and gVisor counts it no
// longer: one too many gets no answer, as from a host whose queue of SYNs is full.
const maxResetting = 64

// complete ends the request and reports whether it was under way.
func (r *Request) complete(reset bool) (first bool) {
	r.once.Do(func() {
		first = true
		if reset {
			defer r.stack.resetting.Add(-1)
			if r.stack.resetting.Add(1) > maxResetting {
				r.stack.count.tcpUnanswered.Add(1)
				reset = false
			}
		}
		r.syn.Complete(reset)
	})
	return first
}
