package node_test

import (
	"fmt"
	"net/netip"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/seed94491740/tsnode/control"
	"github.com/seed94491740/tsnode/devnet"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
)

// syntheticPeer is a peer that exists on the map only.
func syntheticPeer(i int) *control.Node {
	raw := [key.Size]byte{byte(i), byte(i >> 8), byte(i >> 16), 0x42}
	name := fmt.Sprintf("synthetic-%d", i)
	addrs := []netip.Prefix{
		netip.PrefixFrom(netip.AddrFrom4([4]byte{100, 96 + byte(i>>16), byte(i >> 8), byte(i)}), 32),
		netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, 0x7a, 0x11, 0x5c, 0xa1, 0xe0, 1, 13: byte(i >> 16), 14: byte(i >> 8), 15: byte(i)}), 128),
	}
	return &control.Node{
		ID: netmap.NodeID(1<<40 + i), StableID: netmap.StableID(fmt.Sprint("s", i)), Name: name + ".tailnet.test.",
		User: 1, Key: key.NodePublicFromRaw(raw), DiscoKey: key.DiscoPublicFromRaw(raw), Addresses: addrs, AllowedIPs: addrs,
		HomeDERP: 1, Cap: control.CapabilityVersion, MachineAuthorized: true,
		Hostinfo: &control.Hostinfo{OS: "linux", Hostname: name},
	}
}

// A netmap of 100,000 peers, of which twenty are real and active: the number of
// goroutines stays what it was, and a cold peer costs at most 1 kB beside its
// strings (paths.md section 15, scenario 8).
func TestHundredThousandPeers(t *testing.T) {
	const active, perFrame = 20, 20_000
	peers := 100_000
	if raceEnabled {
		peers = perFrame // the detector makes JSON ten times slower
	}
	tailnet := startDevnet(t, devnet.Config{})
	hub := newNode(t, tailnet, "hub")
	up(t, hub)
	var names []string
	var wg sync.WaitGroup
	for i := range active {
		names = append(names, fmt.Sprintf("active%d", i))
		n := newNode(t, tailnet, names[i])
		serveEcho(t, n, 7)
		wg.Go(func() {
			if _, err := n.Up(within(t, patience)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	sees(t, hub, names...)
	echoAll := func() {
		t.Helper()
		for _, name := range names {
			if err := echo(hub, name+":7", 1000); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	echoAll()
	goroutines, heap := runtime.NumGoroutine(), settledHeap()
	for from := 0; from < peers; from += perFrame {
		frame := &control.MapResponse{}
		for i := range perFrame {
			frame.PeersChanged = append(frame.PeersChanged, syntheticPeer(from+i))
		}
		if err := tailnet.SendMap("hub", frame); err != nil {
			t.Fatal(err)
		}
	}
	ctx := within(t, patience)
	for len(hub.Status().Peers) < peers+active {
		select {
		case <-ctx.Done():
			t.Fatalf("%d peers have come", len(hub.Status().Peers))
		case <-time.After(20 * time.Millisecond):
		}
	}
	const strings = 200 // bytes: names, StableID and their headers
	// Before anything is sent again, so that no node's buffers count as peers.
	if per := (int64(settledHeap()) - int64(heap)) / int64(peers); per > 1000+strings {
		t.Errorf("a cold peer costs %d bytes", per)
	} else {
		t.Logf("a cold peer costs %d bytes", per)
	}
	echoAll()
	if more := runtime.NumGoroutine() - goroutines; more > active {
		t.Errorf("%d goroutines more than before", more)
	}
}

// settledHeap returns the least that is in use of several looks: what is still
// under way between goroutines is nobody's cost.
func settledHeap() uint64 {
	least := heapInUse()
	for range 10 {
		time.Sleep(50 * time.Millisecond) // real time: the nodes' own goroutines let go
		least = min(least, heapInUse())
	}
	return least
}
