package netstack

import (
	"cmp"
	"net"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

// defaultKeepAlive is how connections are probed that nothing is said of: a peer
// that has vanished is found out 7 minutes after its last word. A probe, and what
// it makes the tunnel do, costs a peer that sleeps more than the connection is
// worth, so they are much rarer than package net's.
var defaultKeepAlive = net.KeepAliveConfig{Enable: true, Idle: 5 * time.Minute, Interval: 30 * time.Second, Count: 4}

// probeIdle has an endpoint probe its peer as defaultKeepAlive says.
func probeIdle(ep tcpip.Endpoint) { setKeepAlive(ep, defaultKeepAlive) }

// setKeepAlive sets what is positive of k, and whether to probe (RFC 1122 section
// 4.2.3.6).
func setKeepAlive(ep tcpip.Endpoint, k net.KeepAliveConfig) error {
	if k.Count > 0 {
		if err := ep.(*tcp.Endpoint).SetSockOptInt(tcpip.KeepaliveCountOption, k.Count); err != nil { // by its type: nobody else calls that of other endpoints
			return errorOf(err)
		}
	}
	if k.Idle > 0 {
		idle := tcpip.KeepaliveIdleOption(k.Idle)
		if err := ep.SetSockOpt(&idle); err != nil {
			return errorOf(err)
		}
	}
	if k.Interval > 0 {
		interval := tcpip.KeepaliveIntervalOption(k.Interval)
		if err := ep.SetSockOpt(&interval); err != nil {
			return errorOf(err)
		}
	}
	ep.SocketOptions().SetKeepAlive(k.Enable)
	return nil
}

// SetKeepAlive says whether the peer of an idle connection is probed. It is by
// default, as defaultKeepAlive says: when a peer has vanished, Read ends with
// syscall.ETIMEDOUT.
func (c *Conn) SetKeepAlive(on bool) error {
	c.ep.SocketOptions().SetKeepAlive(on)
	return c.stillOpen()
}

// SetKeepAlivePeriod says how long a connection is idle before its peer is probed,
// and the time between probes.
func (c *Conn) SetKeepAlivePeriod(d time.Duration) error {
	return c.SetKeepAliveConfig(net.KeepAliveConfig{Enable: c.ep.SocketOptions().GetKeepAlive(), Idle: d, Interval: d, Count: -1})
}

// SetKeepAliveConfig is as that of *net.TCPConn: what is 0 becomes as
// defaultKeepAlive has it, and what is negative stays as it is.
func (c *Conn) SetKeepAliveConfig(k net.KeepAliveConfig) error {
	k.Idle = cmp.Or(k.Idle, defaultKeepAlive.Idle)
	k.Interval = cmp.Or(k.Interval, defaultKeepAlive.Interval)
	k.Count = cmp.Or(k.Count, defaultKeepAlive.Count)
	if err := setKeepAlive(c.ep, k); err != nil {
		return c.fail("set", err)
	}
	return c.stillOpen()
}
