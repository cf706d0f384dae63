package simnet

import (
	"syscall"
	"time"
)

// Times of retransmission.
const (
	initialRTO = time.Second            // RFC 6298 section 2
	minRTO     = 200 * time.Millisecond // Linux: TCP_RTO_MIN
	maxRTO     = 2 * time.Minute        // Linux: TCP_RTO_MAX
)

// Congestion control (RFC 5681, with NewReno's recovery of RFC 6582).
const (
	mss           = 1460
	initialWindow = 10 * mss // RFC 6928
	duplicates    = 3        // acknowledgements that mean a loss
)

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
