package relay

import (
	"net"
	"time"
)

// rttEvery is how often the round trip time of each connection is taken
// (DERP-83).
const rttEvery = 10 * time.Second

// rttBounds are the upper bounds of the buckets of round trip times. Three more
// count what is above, connections that are no TCP, and failures, each of the
// latter once for a connection.
var rttBounds = [...]time.Duration{
	10 * time.Millisecond, 20 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond,
	150 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond,
}

const (
	rttAbove = len(rttBounds) + iota
	rttNoTCP
	rttError
	rttBuckets
)

// rttNames are the labels of the buckets.
var rttNames = [rttBuckets]string{"10ms", "20ms", "50ms", "100ms", "150ms", "250ms", "500ms", "inf", "non-tcp", "error"}

// rttBucket returns the bucket of a round trip time.
func rttBucket(rtt time.Duration) int {
	for i, bound := range rttBounds {
		if rtt <= bound {
			return i
		}
	}
	return rttAbove
}

// startSampler has round trip times taken, by one timer for all clients
// (DERP-165). s.mu is held.
func (s *Server) startSampler() {
	if !rttKnown || s.debug.NoRTT || s.sampling || s.closed {
		return
	}
	s.sampling = true
	time.AfterFunc(rttEvery, s.sampleRTT)
}

// sampleRTT takes the round trip time of every client, and comes back while
// there are any.
func (s *Server) sampleRTT() {
	all := s.clients()
	for _, c := range all {
		c.sampleRTT()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sampling = false
	if len(all) > 0 {
		s.startSampler()
	}
}

func (c *client) sampleRTT() {
	if c.noRTT {
		return
	}
	bucket := rttNoTCP
	if t := tcpOf(c.conn); t != nil {
		bucket = rttError
		if rtt, err := tcpRTT(t); err == nil {
			bucket = rttBucket(rtt)
		}
	}
	c.noRTT = bucket > rttAbove
	c.server.stats.rtt[bucket].Add(1)
}

// tcpOf returns the TCP connection below TLS and other layers, nil for none.
func tcpOf(c net.Conn) *net.TCPConn {
	for {
		switch t := c.(type) {
		case *net.TCPConn:
			return t
		case interface{ NetConn() net.Conn }:
			c = t.NetConn()
		default:
			return nil
		}
	}
}
