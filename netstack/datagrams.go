package netstack

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

const (
	// datagramsLimit bounds what waits to be read from a UDP socket, in bytes, each
	// datagram counted with queueOverhead on top of its size: 2,400 of 1,200 bytes,
	// for an application that gets no processor for 50 ms.
	datagramsLimit = 4 << 20

	// DatagramsMemory is what a UDP socket holds at most, unless it is told
	// otherwise, in bytes.
	DatagramsMemory = datagramsLimit

	// datagramsMax is the largest limit a socket may set, in bytes.
	datagramsMax = 16 << 20
)

// datagrams are what a UDP socket has received and nobody has read. They are the
// socket's end in gVisor's demultiplexer.
type datagrams struct {
	conn     *UDPConn
	ready    chan struct{} // holds one: there may be datagrams
	overflow *atomic.Uint64
	quota    *quota // of all sockets

	mu     sync.Mutex
	queue  ring
	bytes  int // in queue, with overhead
	limit  int
	err    error // what the peer's host said, for one read or write
	closed bool
	dst    tcpip.SliceWriter // the reader's own
}

var _ stack.TransportEndpoint = (*datagrams)(nil)

func newDatagrams(overflow *atomic.Uint64, q *quota) *datagrams {
	return &datagrams{ready: make(chan struct{}, 1), overflow: overflow, quota: q, limit: datagramsLimit}
}

// A datagram says what was read.
type datagram struct {
	n    int
	from netip.AddrPort
	to   netip.Addr
}

// HandlePacket implements stack.TransportEndpoint, on a receive goroutine.
func (d *datagrams) HandlePacket(id stack.TransportEndpointID, p *stack.PacketBuffer) {
	if !validUDP(id, p) {
		d.conn.stack.count.udpMalformed.Add(1)
		return
	}
	if !d.conn.bound.local.IsValid() && !d.conn.stack.ours(id.LocalAddress) {
		d.conn.stack.count.udpNobody.Add(1) // a host behind the node, whose flow has just ended
		return
	}
	size := p.Size() + queueOverhead
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.closed:
		return
	case d.bytes >= d.limit, !d.quota.take(size):
		d.overflow.Add(1)
		return
	}
	d.bytes += size
	d.queue.push(p.IncRef())
	d.signal()
}

// validUDP checks length and checksum. What came through the tunnel has been
// checked by its AEAD (WG-71); what we sent ourselves has not.
func validUDP(id stack.TransportEndpointID, p *stack.PacketBuffer) bool {
	h := header.UDP(p.TransportHeader().Slice())
	if len(h) < header.UDPMinimumSize {
		return false
	}
	length, sum := header.UDPValid(h, func() uint16 { return p.Data().Checksum() }, uint16(p.Data().Size()),
		p.NetworkProtocolNumber, id.RemoteAddress, id.LocalAddress, p.RXChecksumValidated)
	return length && sum && h.Length() >= header.UDPMinimumSize
}

// HandleError implements stack.TransportEndpoint. Only a connected socket learns
// that nobody listens, as with the system's own.
func (d *datagrams) HandleError(e stack.TransportError, _ *stack.PacketBuffer) {
	if d.conn.remote == nil || e.Kind() != stack.DestinationPortUnreachableTransportError {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.err = syscall.ECONNREFUSED
	d.signal()
}

// Abort implements stack.TransportEndpoint: the stack ends.
func (d *datagrams) Abort() { d.conn.Close() }

// Wait implements stack.TransportEndpoint: there is no goroutine.
func (d *datagrams) Wait() {}

func (d *datagrams) signal() {
	select {
	case d.ready <- struct{}{}:
	default:
	}
}

// next copies the oldest datagram to b. It reports false when there is none.
func (d *datagrams) next(b []byte) (m datagram, ok bool, err error) {
	d.mu.Lock()
	if err = d.err; err != nil {
		d.err = nil
		d.mu.Unlock()
		return m, false, err
	}
	p := d.queue.pop()
	if p != nil {
		size := p.Size() + queueOverhead
		d.bytes -= size
		d.quota.give(size)
	}
	d.mu.Unlock()
	if p == nil {
		return m, false, nil
	}
	m = d.open(p, b)
	p.DecRef()
	return m, true, nil
}

// waits reports whether there is a datagram, or an error, to read.
func (d *datagrams) waits() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.err != nil || d.queue.size > 0
}

// open copies the payload of p to b. The receive goroutine may still look at p,
// so it is only read.
func (d *datagrams) open(p *stack.PacketBuffer, b []byte) (m datagram) {
	h := header.UDP(p.TransportHeader().Slice())
	length := min(len(b), int(h.Length())-header.UDPMinimumSize)
	d.dst = b[:length]
	m.n, _ = p.Data().ReadTo(&d.dst, true)
	d.dst = nil
	src, dst := endpoints(p.NetworkHeader().Slice())
	m.from, m.to = netip.AddrPortFrom(src, h.SourcePort()), dst
	return m
}

// endpoints returns the addresses of an IP header that gVisor has checked.
func endpoints(h []byte) (src, dst netip.Addr) {
	if h[0]>>4 == 4 {
		return netip.AddrFrom4([4]byte(h[12:])), netip.AddrFrom4([4]byte(h[16:]))
	}
	return netip.AddrFrom16([16]byte(h[8:])), netip.AddrFrom16([16]byte(h[24:]))
}

// takeError returns what the peer's host said, once.
func (d *datagrams) takeError() (err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	err, d.err = d.err, nil
	return err
}

func (d *datagrams) setLimit(bytes int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.limit = min(max(bytes, 4<<10), datagramsMax)
}

// close drops what waits, and all that comes.
func (d *datagrams) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	for p := d.queue.pop(); p != nil; p = d.queue.pop() {
		p.DecRef()
	}
	d.quota.give(d.bytes)
	d.bytes = 0
}
