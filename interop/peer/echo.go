package peer

import (
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"time"
)

// echoPort is where every node echoes, by TCP and UDP: that of the Echo Protocol
// (RFC 862).
const echoPort = 7

// headLen is the size of what a datagram of a flow begins with: the flow's
// number and its own, from 0.
const headLen = 8 + 8

// maxSeen bounds what an echo remembers, in datagrams.
const maxSeen = 1 << 20

// An echo sends back what comes, and remembers when datagrams of flows came.
type echo struct {
	mu    sync.Mutex
	seen  map[uint64][]arrival // by flow
	count int                  // of all arrivals, at most maxSeen
}

// An arrival is a datagram that has come to an echo.
type arrival struct {
	number uint64
	at     time.Time
}

// serve listens on a node's IPv4 address for the life of the node.
func (e *echo) serve(m member) error {
	ln, err := m.Listen("tcp", ":"+strconv.Itoa(echoPort))
	if err != nil {
		return err
	}
	ip, _ := m.TailscaleIPs()
	pc, err := m.ListenPacket("udp", netip.AddrPortFrom(ip, echoPort).String())
	if err != nil {
		return err
	}
	go e.serveStreams(ln)
	go e.serveDatagrams(pc)
	return nil
}

func (e *echo) serveStreams(ln net.Listener) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			io.Copy(c, c)
		}()
	}
}

func (e *echo) serveDatagrams(pc net.PacketConn) {
	buf := make([]byte, 1<<16)
	for {
		n, from, err := pc.ReadFrom(buf)
		if err != nil {
			return
		}
		e.note(buf[:n], time.Now())
		pc.WriteTo(buf[:n], from)
	}
}

// note remembers a datagram of a flow.
func (e *echo) note(b []byte, at time.Time) {
	if len(b) < headLen {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.count == maxSeen {
		return
	}
	e.count++
	flow := binary.BigEndian.Uint64(b)
	e.seen[flow] = append(e.seen[flow], arrival{binary.BigEndian.Uint64(b[8:]), at})
}

// arrivals returns when the datagrams of a flow came first, by number; zero for
// those that did not.
func (e *echo) arrivals(flow uint64) []time.Time {
	e.mu.Lock()
	defer e.mu.Unlock()
	return first(e.seen[flow])
}

// first orders arrivals by number, and keeps the first of each.
func first(all []arrival) []time.Time {
	var at []time.Time
	for _, a := range all {
		for uint64(len(at)) <= a.number {
			at = append(at, time.Time{})
		}
		if at[a.number].IsZero() {
			at[a.number] = a.at
		}
	}
	return at
}
