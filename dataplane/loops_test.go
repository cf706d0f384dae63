package dataplane

import (
	"bytes"
	"fmt"
	"testing"
	"testing/synctest"
)

// TestSeveralLoops: several links are drained at once, for one peer or many,
// each in order and without a loss; when one loop fails, all start again, and
// all detach in the end (WG-78).
func TestSeveralLoops(t *testing.T) {
	const links, packets = 4, 300 // more than a batch of each
	cables := make([]*cable, links)
	synctest.Test(t, func(t *testing.T) {
		nodes, stop := testNodes(t, func(i int, c *Config) {
			if i == 0 {
				for i := range cables {
					cables[i] = newCable()
				}
				c.Links = nil
				for _, l := range cables {
					c.Links = append(c.Links, l)
				}
			}
		})
		defer stop()
		a, b := nodes[0], nodes[1]
		a.learn(b.self())
		b.learn(a.self())
		quiet()
		a.cable = cables[0]
		a.send(udpPacket("100.64.0.1:1", "100.64.0.2:1")) // for the handshake
		b.cable.take()
		for _, failing := range []int{-1, 2, 0} {
			if failing >= 0 {
				cables[failing].panics.Store(1)
			}
			checkLoops(t, cables, b, packets)
			if failing >= 0 && a.restarts.Load() == 0 {
				t.Errorf("the loop of link %d has not failed", failing)
			}
			a.restarts.Store(0)
		}
		stop()
		for i, c := range cables {
			if n := c.attached.Load(); n != 0 || c.out != 0 {
				t.Errorf("link %d: %d loops are attached, %d packets not given back", i, n, c.out)
			}
		}
	})
}

// checkLoops sends packets by each link and expects all at b, those of each link
// in order.
func checkLoops(t *testing.T, cables []*cable, b *testNode, packets int) {
	t.Helper()
	for i, c := range cables {
		for k := range packets {
			c.put(udpPacket(fmt.Sprintf("100.64.0.1:%d", 7000+i), "100.64.0.2:53", byte(k>>8), byte(k)))
		}
	}
	quiet()
	for i, c := range cables {
		if n := c.attached.Load(); n != 1 {
			t.Errorf("%d loops drain link %d", n, i)
		}
	}
	got := make([][][]byte, len(cables))
	for _, pkt := range b.cable.take() {
		link := int(pkt[20])<<8 + int(pkt[21]) - 7000 // behind the IPv4 header: the source port
		got[link] = append(got[link], pkt)
	}
	for i := range got {
		if len(got[i]) != packets {
			t.Fatalf("%d of %d packets of link %d arrived", len(got[i]), packets, i)
		}
		for k, pkt := range got[i] {
			if !bytes.Equal(pkt[28:], []byte{byte(k >> 8), byte(k)}) {
				t.Fatalf("packet %d of link %d carries %x", k, i, pkt[28:])
			}
		}
	}
}
