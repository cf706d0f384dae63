package node_test

import (
	"encoding/binary"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seed94491740/tsnode/devnet"
	"github.com/seed94491740/tsnode/node"
	"github.com/seed94491740/tsnode/packet"
)

// syn returns the packet that asks for a connection.
func syn(t testing.TB, from, to netip.AddrPort) []byte {
	t.Helper()
	b, err := packet.AppendIP(nil, from.Addr(), to.Addr(), packet.TCP, 20)
	if err != nil {
		t.Fatal(err)
	}
	b = binary.BigEndian.AppendUint16(b, from.Port())
	b = binary.BigEndian.AppendUint16(b, to.Port())
	b = append(b, 0, 0, 0, 1, 0, 0, 0, 0, 5<<4, packet.SYN, 0xff, 0xff, 0, 0, 0, 0) // RFC 9293 section 3.1
	checksum(b)
	return b
}

// flood writes packets, one from each port of the machine and then over again, until
// end. What comes back is thrown away: nothing is ever answered. It leaves the
// processor to others: what is flooded are the bounds.
func (m *machine) flood(packetFrom func(from netip.AddrPort) []byte) (sent *atomic.Int64, end func()) {
	const firstPort, atOnce = 1024, 20
	var pkts [][]byte
	for port := firstPort; port < 1<<16; port++ {
		pkts = append(pkts, packetFrom(netip.AddrPortFrom(m.addr, uint16(port))))
	}
	sent = new(atomic.Int64)
	stop, done, read := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for i := 0; ; i++ {
			if i%atOnce == 0 {
				select {
				case <-tick.C:
				case <-stop:
					return
				}
			}
			if _, err := m.end.Write(pkts[i%len(pkts)]); err == nil {
				sent.Add(1)
			}
		}
	}()
	go func() {
		defer close(read)
		for b := make([]byte, 1<<16); ; {
			if _, err := m.end.Read(b); err != nil {
				return
			}
		}
	}()
	m.end.SetDeadline(time.Time{})
	return sent, func() {
		close(stop)
		m.end.SetDeadline(time.Now())
		<-done
		<-read
	}
}

// flooded returns a node, a peer of it, and a machine that will flood it.
func flooded(t *testing.T) (server, client *node.Node, m *machine) {
	t.Helper()
	tailnet := startDevnet(t, devnet.Config{})
	attacker, m := newMachine(t, tailnet, "attacker")
	server, client = newNode(t, tailnet, "server"), newNode(t, tailnet, "client")
	for _, n := range []*node.Node{attacker, server, client} {
		up(t, n)
	}
	sees(t, server, "attacker", "client")
	sees(t, client, "server")
	sees(t, attacker, "server")
	m.addr = ip4Of(attacker)
	return server, client, m
}

// A source that floods a port of -R with SYNs, and never opens what it asks for,
// does not stop another: its connections are forwarded meanwhile, at the node and
// the peer that were there before. What is refused is counted, and the memory is
// bounded (SVC-50).
func TestSYNFloodStopsNobodyElse(t *testing.T) {
	server, client, m := flooded(t)
	target := echoOfThisMachine(t)
	set := forwards(t, server, "-R 80:"+target+",max=200")
	to := netip.AddrPortFrom(ip4Of(server), 80)
	before := heapInUse()
	sent, end := m.flood(func(from netip.AddrPort) []byte { return syn(t, from, to) })
	defer end()
	await(t, func() bool { return sent.Load() > 5000 && set.List()[0].Refused > 1000 })
	for i := range 20 {
		if err := echo(client, to.String(), 1000); err != nil {
			t.Errorf("connection %d during the flood: %v", i, err)
		}
	}
	s := set.List()[0]
	if s.Open > 150 {
		t.Errorf("%d of 200 connections are open, most of them of one source", s.Open)
	}
	if grown := int64(heapInUse()) - int64(before); grown > 64<<20 {
		t.Errorf("the heap has grown by %d MiB", grown>>20)
	} else {
		t.Logf("%d SYNs sent, %d refused, %d open; the heap has grown by %d KiB", sent.Load(), s.Refused, s.Open, grown>>10)
	}
}

// A source that begins a flow of datagrams from each of its ports does not stop
// another.
func TestUDPFloodStopsNobodyElse(t *testing.T) {
	server, client, m := flooded(t)
	target := udpEchoOfThisMachine(t)
	set := forwards(t, server, "-R 53:"+target+"/udp,max=200")
	to := netip.AddrPortFrom(ip4Of(server), 53)
	before := heapInUse()
	sent, end := m.flood(func(from netip.AddrPort) []byte { return datagram(t, from, to, []byte("flood")) })
	defer end()
	await(t, func() bool { return sent.Load() > 5000 && set.List()[0].Refused > 1000 })
	for i := range 20 {
		if err := echoUDP(t, client, to); err != nil {
			t.Errorf("flow %d during the flood: %v", i, err)
		}
	}
	s := set.List()[0]
	if s.Open > 150 {
		t.Errorf("%d of 200 flows are open, most of them of one source", s.Open)
	}
	if grown := int64(heapInUse()) - int64(before); grown > 64<<20 {
		t.Errorf("the heap has grown by %d MiB", grown>>20)
	} else {
		t.Logf("%d datagrams sent, %d refused, %d open; the heap has grown by %d KiB", sent.Load(), s.Refused, s.Open, grown>>10)
	}
}
