package simnet

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// States of a connection (RFC 9293 section 3.3.2); those after establishment
// follow from finAcked and finReceived.
type state uint8

const (
	synSent state = iota
	synReceived
	established
	ended // not in the host's table any more
)

// Limits of TCP.
const (
	synRetries    = 6  // Linux: net.ipv4.tcp_syn_retries; gives up after 127 s
	synAckRetries = 5  // Linux: net.ipv4.tcp_synack_retries
	dataRetries   = 15 // Linux: net.ipv4.tcp_retries2; gives up after some 924 s
	orphanRetries = 8  // Linux: net.ipv4.tcp_orphan_retries; of closed connections

	finTimeout = time.Minute // Linux: net.ipv4.tcp_fin_timeout

	keepAlive       = 15 * time.Second // idle time and interval of probes; net.Dialer's and net.ListenConfig's default
	keepAliveProbes = 9
)

// A tcpConn is a TCP connection of a host. Its data are byte streams that only
// a dead path or a reset ends.
type tcpConn struct {
	host     *Host
	tuple    tuple
	state    state
	listener *listener // that will be told of it once it is established
	ready    sync.Cond // broadcast when a reader or writer may go on
	err      error     // why it has ended

	// sending
	out       fifo   // data from una on
	una, nxt  uint64 // oldest unacknowledged, next to send
	top       uint64 // highest ever sent
	window    int    // of the peer
	cwnd      int
	ssthresh  int
	dups      int
	recover   uint64 // recovery ends when this is acknowledged; 0: none
	shut      bool   // nothing will be written any more: FIN after the data
	finAcked  bool
	rto       time.Duration
	srtt, dev time.Duration
	timed     uint64 // sequence number whose acknowledgement is timed; 0: none
	timedAt   int64
	retries   int
	timer     timer

	// receiving
	in          fifo
	next        uint64            // expected
	early       map[uint64][]byte // data beyond, by sequence number
	earlySize   int
	finAt       uint64 // sequence number of the peer's FIN; 0: not known
	finReceived bool
	advertised  int // window told last

	closed   bool // by its user
	heard    int64
	probes   int
	alive    timer
	deadline [2]deadline // reading, writing
}

// newConn puts a connection into the host's table.
func (h *Host) newConn(t tuple, s state) *tcpConn {
	c := &tcpConn{
		host: h, tuple: t, state: s, rto: initialRTO,
		cwnd: initialWindow, ssthresh: streamBuffer, window: mss,
	}
	c.ready.L = &h.net.mu
	c.timer.fire, c.alive.fire = c.onTimer, c.onAlive
	c.una = uint64(h.net.rand.Uint32()) + 1
	c.nxt, c.top = c.una, c.una
	h.tcp[t] = c
	return c
}

// input takes a segment.
func (c *tcpConn) input(p *parcel) {
	s := &p.segment
	c.heard, c.probes = c.host.net.at, 0
	switch {
	case c.state == synSent:
		c.inputSYN(p)
		return
	case s.flags&flagRST != 0:
		// RFC 5961 section 3.2: believe it only in the window.
		if s.seq >= c.next && s.seq <= c.next+streamBuffer {
			c.fail(syscall.ECONNRESET)
		}
		return
	case s.flags&flagSYN != 0: // repeated, or of another life of these ports
		if c.state == synReceived {
			c.transmit(flagSYN|flagACK, c.una, nil)
		} else {
			c.acknowledge()
		}
		return
	}
	if s.flags&flagACK == 0 || s.ack > c.top {
		return
	}
	if c.state == synReceived && !c.establish(s) {
		return
	}
	c.inputACK(s, len(p.payload))
	if c.state == ended {
		return
	}
	c.inputData(p)
	c.output()
	c.finish()
}

// inputSYN takes the answer to a connection request.
func (c *tcpConn) inputSYN(p *parcel) {
	s := &p.segment
	switch {
	case s.ack != c.nxt:
	case s.flags&flagRST != 0:
		c.fail(syscall.ECONNREFUSED)
	case s.flags&flagSYN != 0:
		c.next = s.seq + 1
		c.begin(s)
		c.acknowledge()
	}
}

// begin makes the connection established.
func (c *tcpConn) begin(s *segment) {
	c.state = established
	c.una, c.window, c.retries = s.ack, s.window, 0
	c.timer.stop()
	c.heard = c.host.net.at
	c.host.net.schedule(&c.alive, c.host.net.later(keepAlive))
	c.ready.Broadcast()
}

// establish ends the handshake on the listener's side. With a full backlog the
// segment is ignored: the peer will send again.
func (c *tcpConn) establish(s *segment) bool {
	if s.ack != c.nxt || !c.listener.add(c) {
		return false
	}
	c.begin(s)
	return true
}

// inputData takes data and FIN.
func (c *tcpConn) inputData(p *parcel) {
	s := &p.segment
	size := uint64(len(p.payload))
	if s.flags&flagFIN != 0 {
		c.finAt = s.seq + size
	}
	if c.closed && size > 0 && s.seq+size > c.next {
		// Nobody will read it (RFC 9293 section 3.10.4, RFC 1122 section
		// 4.2.2.13).
		c.host.reset(p)
		c.fail(syscall.ECONNRESET)
		return
	}
	switch {
	case size == 0 && s.flags&flagFIN == 0:
		if s.seq == c.next-1 { // a probe
			c.acknowledge()
		}
		return
	case s.seq > c.next:
		c.keep(s.seq, p.payload)
	default:
		c.take(s.seq, p.payload)
		c.takeEarly()
	}
	if c.finAt == c.next && !c.finReceived {
		c.finReceived = true
		c.next++
	}
	c.acknowledge()
	c.ready.Broadcast()
}

// take appends data that begin at seq, which is not beyond next.
func (c *tcpConn) take(seq uint64, b []byte) {
	old := c.next - seq
	if old >= uint64(len(b)) {
		return
	}
	b = b[old:]
	b = b[:min(len(b), streamBuffer-c.in.len())]
	c.in.push(b)
	c.next += uint64(len(b))
}

// keep remembers data that came too early, as long as the window is not
// exceeded.
func (c *tcpConn) keep(seq uint64, b []byte) {
	if len(b) == 0 || c.early[seq] != nil || c.earlySize+len(b) > streamBuffer || seq > c.next+streamBuffer {
		return
	}
	if c.early == nil {
		c.early = make(map[uint64][]byte)
	}
	c.early[seq] = append([]byte(nil), b...)
	c.earlySize += len(b)
}

// takeEarly appends what has been waiting for the data before it.
func (c *tcpConn) takeEarly() {
	for found := true; found && len(c.early) > 0; {
		found = false
		for seq, b := range c.early {
			if seq <= c.next {
				delete(c.early, seq)
				c.earlySize -= len(b)
				c.take(seq, b)
				found = true
			}
		}
	}
}

// finish ends the connection when both sides have said and heard all.
func (c *tcpConn) finish() {
	if !c.finAcked || c.state == ended {
		return
	}
	if c.finReceived {
		c.remove()
		return
	}
	if c.closed && !c.timer.running() {
		c.host.net.schedule(&c.timer, c.host.net.later(finTimeout))
	}
}

// onAlive probes a peer that has been silent (RFC 9293 section 3.8.4).
func (c *tcpConn) onAlive() {
	if c.state != established || c.closed {
		return
	}
	n := c.host.net
	if quiet := time.Duration(n.at - c.heard); quiet < keepAlive {
		n.schedule(&c.alive, n.later(keepAlive-quiet))
		return
	}
	c.in.trim()
	c.out.trim()
	if c.nxt == c.una { // otherwise retransmission finds out
		if c.probes++; c.probes > keepAliveProbes {
			c.fail(syscall.ETIMEDOUT)
			return
		}
		c.transmit(flagACK, c.una-1, nil)
	}
	n.schedule(&c.alive, n.later(keepAlive))
}

// fail ends the connection with an error for its user.
func (c *tcpConn) fail(e syscall.Errno) {
	if c.state == ended {
		return
	}
	if c.err = os.NewSyscallError(syscallOf(c.state), e); c.finReceived && e == syscall.ECONNRESET {
		c.err = io.EOF
	}
	c.remove()
}

func syscallOf(s state) string {
	if s == synSent {
		return "connect"
	}
	return "read"
}

// remove takes the connection out of the host's table.
func (c *tcpConn) remove() {
	if c.state == ended {
		return
	}
	if c.state == synReceived {
		c.listener.pending--
	}
	c.state = ended
	c.timer.stop()
	c.alive.stop()
	delete(c.host.tcp, c.tuple)
	c.early = nil
	c.ready.Broadcast()
}

// abandon ends the connection when the internet is closed.
func (c *tcpConn) abandon() {
	c.err = net.ErrClosed
	c.remove()
}
