package netstack

import (
	"net/netip"
	"sync"
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// messagesLimit bounds what waits to be read from a raw socket, in bytes, each
// message counted with queueOverhead on top of its size: 400 of ping(8)'s.
const messagesLimit = 256 << 10

// messages are what a raw socket has received and nobody has read. They are the
// socket's end in gVisor's demultiplexer.
type messages struct {
	host     netip.Addr    // only what is for it; unspecified: for any
	ready    chan struct{} // holds one: there may be messages
	overflow *atomic.Uint64
	quota    *quota // of all sockets

	mu     sync.Mutex
	queue  ring
	bytes  int // in queue, with overhead
	closed bool
}

var _ stack.RawTransportEndpoint = (*messages)(nil)

func newMessages(overflow *atomic.Uint64, q *quota, host netip.Addr) *messages {
	return &messages{host: host, ready: make(chan struct{}, 1), overflow: overflow, quota: q}
}

// HandlePacket implements stack.RawTransportEndpoint, on a receive goroutine; p
// is this socket's own copy.
func (m *messages) HandlePacket(p *stack.PacketBuffer) {
	src, dst := endpoints(p.NetworkHeader().Slice())
	if !m.host.IsUnspecified() && dst != m.host || src.Is6() && !validICMPv6(p, src, dst) {
		return
	}
	size := p.Size() + queueOverhead
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.closed:
		return
	case m.bytes+size > messagesLimit, !m.quota.take(size):
		m.overflow.Add(1)
		return
	}
	m.bytes += size
	m.queue.push(p.IncRef())
	select {
	case m.ready <- struct{}{}:
	default:
	}
}

// validICMPv6 checks the checksum, which is the system's to check (RFC 3542
// section 3.1).
func validICMPv6(p *stack.PacketBuffer, src, dst netip.Addr) bool {
	v := stack.PayloadSince(p.TransportHeader())
	defer v.Release()
	b := v.AsSlice()
	sum := header.PseudoHeaderChecksum(header.ICMPv6ProtocolNumber, toGvisor(src), toGvisor(dst), uint16(len(b)))
	return len(b) >= header.ICMPv6MinimumSize && checksum.Checksum(b, sum) == 0xffff // RFC 1071 section 1
}

// next copies the oldest message to b. It reports false when there is none.
func (m *messages) next(b []byte) (n int, from netip.Addr, ok bool) {
	m.mu.Lock()
	p := m.queue.pop()
	if p != nil {
		size := p.Size() + queueOverhead
		m.bytes -= size
		m.quota.give(size)
	}
	m.mu.Unlock()
	if p == nil {
		return 0, from, false
	}
	defer p.DecRef()
	from, _ = endpoints(p.NetworkHeader().Slice())
	v := stack.PayloadSince(p.TransportHeader())
	defer v.Release()
	return copy(b, v.AsSlice()), from, true
}

// close drops what waits, and all that comes.
func (m *messages) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	for p := m.queue.pop(); p != nil; p = m.queue.pop() {
		p.DecRef()
	}
	m.quota.give(m.bytes)
	m.bytes = 0
}
