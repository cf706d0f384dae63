package interop

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/interop/peer"
	"github.com/seed94491740/tsnode/node"
	"github.com/seed94491740/tsnode/packet"
)

// relayedBytes is what a node sends through a relay and gets back.
const relayedBytes = 1 << 20

// A withoutUDP is this host's network, on which all UDP that is sent is lost, and
// one host refuses TCP.
type withoutUDP struct {
	host.OS
	refuses string // empty: none
}

func (n withoutUDP) ListenUDP(ctx context.Context, family string, port uint16) (host.UDPConn, error) {
	c, err := n.OS.ListenUDP(ctx, family, port)
	return mute{c}, err
}

func (n withoutUDP) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	if to, _, err := net.SplitHostPort(address); err == nil && to == n.refuses {
		return nil, fmt.Errorf("%s refuses connections", to)
	}
	return n.OS.Dial(ctx, network, address)
}

// A mute is a UDP socket whose datagrams go nowhere.
type mute struct{ host.UDPConn }

func (mute) WriteBursts(netip.AddrPort, []packet.Burst) error { return nil }

// relayedNode starts a node of ours that has only relays to send through.
func relayedNode(t *testing.T, control, name string, network withoutUDP) *node.Node {
	t.Helper()
	n := &node.Node{
		ControlURL: control, Hostname: name, Ephemeral: true, Logger: testLog(t, name), Network: network,
		Proxy: func(*http.Request) (*url.URL, error) { return nil, nil },
	}
	t.Cleanup(func() { n.Close() })
	ctx, cancel := context.WithTimeout(context.Background(), upTimeout)
	defer cancel()
	if _, err := n.Up(ctx); err != nil {
		t.Fatalf("our node %s: %v", name, err)
	}
	return n
}

// exchangeRelayed carries TCP and UDP both ways, and wants our node to have sent
// by the relay.
func exchangeRelayed(t *testing.T, ours *node.Node, other dialer) {
	t.Helper()
	for _, way := range [][2]dialer{{ours, other}, {other, ours}} {
		ip, _ := way[1].TailscaleIPs()
		exchangeUDP(t, way[0], way[1], ip)
		exchangeTCP(t, way[0], way[1], ip, relayedBytes)
	}
	for _, p := range ours.Status().Peers {
		if !strings.HasPrefix(p.Path, "relay ") {
			t.Errorf("our node sends to %s: %q, want by a relay", p.HostName, p.Path)
		}
	}
}

// Nodes of both kinds exchange TCP and UDP through either relay program, whose
// certificate the map pins (DERP-128).
func TestNodesThroughRelayProgram(t *testing.T) {
	for _, kind := range relayKinds {
		t.Run(fmt.Sprintf("%s relay", kind), func(t *testing.T) {
			t.Parallel()
			control, _ := referenceControlOf(t, startRegion(t, kind).derpMap())
			one := relayedNode(t, control, "one", withoutUDP{})
			exchangeRelayed(t, one, relayedNode(t, control, "two", withoutUDP{}))
			exchangeRelayed(t, one, tsnetNode(t, control, "theirs", ""))
		})
	}
}

// A tsnet node whose home is the region's first relay and a node of ours that
// reaches only its second one exchange TCP and UDP across the mesh of both kinds
// of relays (DERP-123, DERP-129).
func TestNodesAcrossMesh(t *testing.T) {
	for _, kinds := range [][]peer.Kind{{peer.Ours, peer.Reference}, {peer.Reference, peer.Ours}} {
		t.Run(fmt.Sprintf("our node at the %s relay", kinds[1]), func(t *testing.T) {
			t.Parallel()
			r := startRegion(t, kinds...)
			control, _ := referenceControlOf(t, r.derpMap())
			ours := relayedNode(t, control, "ours", withoutUDP{refuses: r.relays[0].host})
			exchangeRelayed(t, ours, tsnetNode(t, control, "theirs", ""))
		})
	}
}
