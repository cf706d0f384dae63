package node

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"sync"
	"testing"

	"github.com/seed94491740/tsnode/transport"
)

// A capture notes at its end how many packets it lacks, also of those that pass
// while it ends.
func TestCaptureCountsWhatItLacks(t *testing.T) {
	var all taps
	c, err := all.begin()
	if err != nil {
		t.Fatal(err)
	}
	pkt := make([]byte, 64<<10)
	const more = 20
	for range maxCaptured/len(pkt) + more {
		c.received(pkt)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for range 1000 {
			c.received(pkt)
		}
	})
	var out bytes.Buffer
	if err := c.finish(&out); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	const behind = 8 + 4 + 4 // the count, the end of the options, the length of the block
	if lacks := binary.LittleEndian.Uint64(out.Bytes()[out.Len()-behind:]); lacks < more {
		t.Errorf("%d packets are missing, the capture says %d", more, lacks)
	}
}

// A path through a peer relay is neither direct nor a region's.
func TestPongThroughPeerRelay(t *testing.T) {
	at := netip.MustParseAddrPort("192.0.2.1:7777")
	var p Pong
	new(runtime).showPath(&p, transport.Endpoint{Addr: at, VNI: 7})
	if p.PeerRelay != "192.0.2.1:7777:vni:7" || p.Direct.IsValid() || p.Relay != "" {
		t.Errorf("%+v", p)
	}
	p = Pong{}
	if new(runtime).showPath(&p, transport.Endpoint{Addr: at}); p.PeerRelay != "" || p.Direct != at {
		t.Errorf("direct: %+v", p)
	}
}
