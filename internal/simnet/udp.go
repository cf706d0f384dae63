package simnet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"

	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/packet"
)

const (
	// receiveBuffer is how much waits in a UDP socket to be read, in bytes;
	// each datagram counts as at least perDatagram, as in Linux.
	receiveBuffer = 4 << 20
	perDatagram   = 512

	// maxDatagram4 and maxDatagram6 are the longest payloads of a datagram
	// (RFC 768 with RFC 791, RFC 8200).
	maxDatagram4 = 65535 - header4 - headerUDP
	maxDatagram6 = 65535 - headerUDP

	// maxJoined is how many datagrams a host joins into one read, as in Linux.
	maxJoined = 64

	// ephemeralFirst and ephemeralLast are the ports that the system chooses
	// from (Linux: net.ipv4.ip_local_port_range).
	ephemeralFirst, ephemeralLast = 32768, 60999
)

// A udpConn is a UDP socket of a host.
type udpConn struct {
	host *Host
	six  bool
	port uint16

	queue      []*parcel // received, from head on
	head       int
	queued     int // bytes of them
	arrived    sync.Cond
	closed     bool
	overflows  uint32
	joining    bool // of datagrams read
	unfragment bool // what is sent must not be fragmented
}

var (
	_ host.UDPConn         = (*udpConn)(nil)
	_ host.Offloader       = (*udpConn)(nil)
	_ host.OverflowCounter = (*udpConn)(nil)
	_ host.Fragmenter      = (*udpConn)(nil)

	_ host.FallbackReporter = (*udpConn)(nil)
)

var errFamily = errors.New("not an address of the socket's family")

// family returns the index of a family in Host.udp.
func family(six bool) int {
	if six {
		return 1
	}
	return 0
}

// ListenUDP implements host.Network.
func (h *Host) ListenUDP(ctx context.Context, network string, port uint16) (host.UDPConn, error) {
	if network != "udp4" && network != "udp6" {
		return nil, fmt.Errorf("simnet: listen UDP: family %q is neither udp4 nor udp6", network)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	n := h.net
	n.acquire()
	defer n.release()
	c := &udpConn{host: h, six: network == "udp6", joining: !h.cfg.NoOffload}
	c.arrived.L = &n.mu
	bound := h.udp[family(c.six)]
	if n.closed {
		return nil, listenError(network, c.six, port, net.ErrClosed)
	}
	if port == 0 {
		port = n.ephemeral(func(p uint16) bool { return bound[p] == nil })
	}
	if port == 0 || bound[port] != nil {
		return nil, listenError(network, c.six, port, os.NewSyscallError("bind", syscall.EADDRINUSE))
	}
	c.port = port
	bound[port] = c
	return c, nil
}

func listenError(network string, six bool, port uint16, err error) error {
	return &net.OpError{Op: "listen", Net: network, Addr: &net.UDPAddr{IP: unspecified(six).AsSlice(), Port: int(port)}, Err: err}
}

// unspecified returns the wildcard address of a family.
func unspecified(six bool) netip.Addr {
	if six {
		return netip.IPv6Unspecified()
	}
	return netip.IPv4Unspecified()
}

// ephemeral draws a port that is free, 0 if none is.
func (n *Internet) ephemeral(free func(uint16) bool) uint16 {
	const count = ephemeralLast - ephemeralFirst + 1
	first := n.rand.IntN(count)
	for i := range count {
		if p := uint16(ephemeralFirst + (first+i)%count); free(p) {
			return p
		}
	}
	return 0
}

// receiveUDP queues p for the socket it is for.
func (h *Host) receiveUDP(p *parcel) {
	c := h.udp[family(p.dst.Addr().Is6())][p.dst.Port()]
	if c == nil {
		h.net.drop(p, &h.node, NoSocket)
		return
	}
	size := max(len(p.payload), perDatagram)
	if c.queued+size > receiveBuffer {
		c.overflows++
		h.net.drop(p, &h.node, BufferFull)
		return
	}
	h.net.note(p, &h.node, Delivered)
	c.queued += size
	c.queue = append(c.queue, p)
	c.arrived.Signal()
}

// ReadBatch implements host.UDPConn.
func (c *udpConn) ReadBatch(ms []host.Message) (int, error) {
	n := c.host.net
	n.mu.Lock()
	defer n.mu.Unlock()
	for c.head == len(c.queue) && !c.closed {
		c.arrived.Wait()
	}
	if c.closed {
		return 0, net.ErrClosed
	}
	k := 0
	for k < len(ms) && c.head < len(c.queue) {
		c.read(&ms[k])
		k++
	}
	if c.head == len(c.queue) {
		c.queue, c.head = c.queue[:0], 0
	}
	return k, nil
}

// read fills m with the next datagram, and those that can be joined to it.
func (c *udpConn) read(m *host.Message) {
	p := c.take()
	m.From = p.src
	m.N = copy(m.Buf, p.payload)
	m.Segment = m.N
	last := m.N
	c.host.net.recycle(p)
	for joined := 1; c.joining && joined < maxJoined && last == m.Segment && last > 0 && c.head < len(c.queue); joined++ {
		next := c.queue[c.head]
		if next.src != m.From || len(next.payload) > m.Segment || len(next.payload) == 0 || m.N+len(next.payload) > len(m.Buf) {
			return
		}
		c.take()
		last = copy(m.Buf[m.N:], next.payload)
		m.N += last
		c.host.net.recycle(next)
	}
}

func (c *udpConn) take() *parcel {
	p := c.queue[c.head]
	c.queue[c.head] = nil
	c.head++
	c.queued -= max(len(p.payload), perDatagram)
	return p
}

// WriteBursts implements host.UDPConn. Datagrams that a link loses are no
// error.
func (c *udpConn) WriteBursts(to netip.AddrPort, bursts []packet.Burst) error {
	to = netip.AddrPortFrom(to.Addr().Unmap(), to.Port())
	if !to.IsValid() || to.Addr().Is6() != c.six {
		return fmt.Errorf("simnet: send to %v: %w", to, errFamily)
	}
	n := c.host.net
	n.acquire()
	defer n.release()
	if c.closed {
		return net.ErrClosed
	}
	from, err := c.host.source(to.Addr())
	if err != nil {
		return os.NewSyscallError("sendmmsg", err)
	}
	var first error
	for _, b := range bursts {
		if err := c.write(netip.AddrPortFrom(from, c.port), to, b); err != nil && first == nil {
			first = os.NewSyscallError("sendmmsg", err)
		}
	}
	return first
}

func (c *udpConn) write(from, to netip.AddrPort, b packet.Burst) (first error) {
	n := c.host.net
	limit, stride := maxDatagram4, b.Room+b.Size
	if c.six {
		limit = maxDatagram6
	}
	for i := range b.Count {
		d := b.Buf[i*stride : min((i+1)*stride, len(b.Buf))]
		if len(d) > limit {
			return syscall.EMSGSIZE
		}
		p := n.make(UDP, from, to, len(d))
		copy(p.payload, d)
		p.fragment = !c.unfragment
		if err := c.host.send(p); err != nil && first == nil {
			first = err
		}
	}
	return first
}

// SetOffload implements host.Offloader. Segmentation is not to be seen: bursts
// cross every link as datagrams.
func (c *udpConn) SetOffload(_, coalescing bool) error {
	c.host.net.acquire()
	defer c.host.net.release()
	c.joining = coalescing && !c.host.cfg.NoOffload
	return nil
}

// OnFallback implements host.FallbackReporter: a host with NoOffload is like one
// whose kernel refuses.
func (c *udpConn) OnFallback(report func(refused string)) {
	if c.host.cfg.NoOffload {
		report("segmenting and coalescing of datagrams")
	}
}

// DontFragment implements host.Fragmenter. It is off in the beginning: what is
// too long for a link passes in fragments.
func (c *udpConn) DontFragment(on bool) error {
	c.host.net.acquire()
	defer c.host.net.release()
	c.unfragment = on
	return nil
}

// Overflows implements host.OverflowCounter.
func (c *udpConn) Overflows() uint32 {
	c.host.net.acquire()
	defer c.host.net.release()
	return c.overflows
}

// LocalAddr implements host.UDPConn.
func (c *udpConn) LocalAddr() netip.AddrPort { return netip.AddrPortFrom(unspecified(c.six), c.port) }

// Close implements host.UDPConn. What has not been read is lost.
func (c *udpConn) Close() error {
	c.host.net.acquire()
	defer c.host.net.release()
	c.close()
	return nil
}

func (c *udpConn) close() {
	if c.closed {
		return
	}
	c.closed = true
	delete(c.host.udp[family(c.six)], c.port)
	for c.head < len(c.queue) {
		c.host.net.recycle(c.take())
	}
	c.queue = nil
	c.arrived.Broadcast()
}
