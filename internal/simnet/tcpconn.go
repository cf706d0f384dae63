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

// Times of TCP.
const (
	initialRTO = time.Second            // RFC 6298 section 2
	minRTO     = 200 * time.Millisecond // Linux: TCP_RTO_MIN
	maxRTO     = 2 * time.Minute        // Linux: TCP_RTO_MAX

	synRetries    = 6  // Linux: net.ipv4.tcp_syn_retries; gives up after 127 s
	synAckRetries = 5  // Linux: net.ipv4.tcp_synack_retries
	dataRetries   = 15 // Linux: net.ipv4.tcp_retries2; gives up after some 924 s
	orphanRetries = 8  // Linux: net.ipv4.tcp_orphan_retries; of closed connections

	finTimeout = time.Minute // Linux: net.ipv4.tcp_fin_timeout

	keepAlive       = 15 * time.Second // idle time and interval of probes; net.Dialer's and net.ListenConfig's default
	keepAliveProbes = 9
)

// Congestion control (RFC 5681, with NewReno's recovery of RFC 6582).
const (
	mss           = 1460
	initialWindow = 10 * mss // RFC 6928
	duplicates    = 3        // acknowledgements that mean a loss
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

// transmit sends one segment with data from out.
func (c *tcpConn) transmit(flags uint8, seq uint64, data []byte) {
	n := c.host.net
	p := n.make(TCP, c.tuple.local, c.tuple.remote, len(data))
	copy(p.payload, data)
	c.advertised = streamBuffer - c.in.len()
	p.segment = segment{flags: flags, seq: seq, ack: c.next, window: c.advertised}
	_ = c.host.send(p) // what cannot be sent now is sent again
}

func (c *tcpConn) acknowledge() { c.transmit(flagACK, c.top, nil) }

// sendSYN sends or repeats the first segment.
func (c *tcpConn) sendSYN() {
	flags := flagSYN
	if c.state == synReceived {
		flags |= flagACK
	}
	c.nxt = c.una + 1
	c.top = c.nxt
	c.transmit(flags, c.una, nil)
	c.setTimer()
}

func (c *tcpConn) setTimer() {
	c.host.net.schedule(&c.timer, c.host.net.later(min(c.rto<<c.retries, maxRTO)))
}

// output sends what the windows allow.
func (c *tcpConn) output() {
	if c.state != established || c.finAcked {
		return
	}
	for {
		offset := int(c.nxt - c.una)
		room := min(c.cwnd, c.window) - offset
		size := min(c.out.len()-offset, room, maxSegment)
		if size <= 0 {
			break
		}
		c.time(c.nxt + uint64(size))
		c.transmit(flagACK, c.nxt, c.out.at(offset, size))
		c.advance(uint64(size))
	}
	if c.shut && c.nxt == c.end() {
		c.transmit(flagFIN|flagACK, c.nxt, nil)
		c.advance(1)
	}
	if !c.timer.running() && (c.nxt > c.una || c.out.len() > 0) {
		c.setTimer()
	}
}

// end returns the sequence number after all data to be sent.
func (c *tcpConn) end() uint64 { return c.una + uint64(c.out.len()) }

func (c *tcpConn) advance(n uint64) {
	c.nxt += n
	c.top = max(c.top, c.nxt)
}

// time starts to time the acknowledgement of what is sent for the first time
// (RFC 6298 section 3, Karn's algorithm).
func (c *tcpConn) time(end uint64) {
	if c.timed == 0 && end > c.top {
		c.timed, c.timedAt = end, c.host.net.at
	}
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

// inputACK takes an acknowledgement (RFC 5681, RFC 6582).
func (c *tcpConn) inputACK(s *segment, payload int) {
	grown := s.window > c.window
	c.window = s.window
	if s.ack <= c.una {
		if s.ack == c.una && payload == 0 && !grown && c.nxt > c.una && s.flags&flagFIN == 0 {
			c.duplicate()
		}
		return
	}
	acked := s.ack - c.una
	data := min(int(acked), c.out.len())
	c.out.skip(data)
	c.una = s.ack
	c.nxt = max(c.nxt, c.una)
	c.finAcked = data < int(acked)
	c.dups, c.retries = 0, 0
	c.measure(s.ack)
	c.grow(int(acked))
	if c.nxt > c.una || c.out.len() > 0 {
		c.setTimer()
	} else {
		c.timer.stop()
	}
	c.ready.Broadcast()
}

// duplicate counts acknowledgements of the same data; the third means that the
// segment after it is lost.
func (c *tcpConn) duplicate() {
	if c.dups++; c.dups != duplicates || c.recover != 0 {
		return
	}
	c.recover = c.top
	c.ssthresh = max(int(c.top-c.una)/2, 2*mss)
	c.cwnd = c.ssthresh
	c.resend()
}

// resend repeats the oldest segment.
func (c *tcpConn) resend() {
	c.timed = 0
	if size := min(c.out.len(), int(c.top-c.una), maxSegment); size > 0 {
		c.transmit(flagACK, c.una, c.out.at(0, size))
	} else if c.top > c.end() {
		c.transmit(flagFIN|flagACK, c.una, nil)
	}
}

// grow opens the congestion window after new data were acknowledged.
func (c *tcpConn) grow(acked int) {
	switch {
	case c.recover != 0 && c.una < c.recover: // RFC 6582 section 3.2: partial
		c.resend()
	case c.recover != 0:
		c.recover = 0
	case c.cwnd < c.ssthresh:
		c.cwnd = min(c.cwnd+acked, streamBuffer)
	default:
		c.cwnd = min(c.cwnd+max(1, mss*acked/c.cwnd), streamBuffer)
	}
}

// measure updates the retransmission timeout (RFC 6298 section 2).
func (c *tcpConn) measure(ack uint64) {
	if c.timed == 0 || ack < c.timed {
		return
	}
	r := time.Duration(c.host.net.at - c.timedAt)
	c.timed = 0
	if c.srtt == 0 {
		c.srtt, c.dev = r, r/2
	} else {
		c.dev = (3*c.dev + (c.srtt - r).Abs()) / 4
		c.srtt = (7*c.srtt + r) / 8
	}
	c.rto = max(minRTO, c.srtt+4*c.dev)
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

// onTimer sends again what was not acknowledged in time.
func (c *tcpConn) onTimer() {
	if c.closed && c.finAcked { // the peer does not end its side
		c.remove()
		return
	}
	limit := dataRetries
	switch {
	case c.state == synSent:
		limit = synRetries
	case c.state == synReceived:
		limit = synAckRetries
	case c.closed:
		limit = orphanRetries
	}
	if c.retries++; c.retries > limit {
		c.fail(syscall.ETIMEDOUT)
		return
	}
	if c.state != established {
		c.sendSYN()
		return
	}
	c.setTimer()
	if c.window == 0 { // RFC 9293 section 3.8.6.1: probe it
		c.retries = min(c.retries, dataRetries-1) // it answers
		c.transmit(flagACK, c.una-1, nil)
		return
	}
	c.ssthresh = max(int(c.nxt-c.una)/2, 2*mss)
	c.cwnd, c.recover, c.dups, c.timed = mss, 0, 0, 0
	c.nxt = c.una
	c.output()
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
