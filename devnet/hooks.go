package devnet

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"time"

	"github.com/seed94491740/tsnode/control"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
)

// What follows serves tests of nodes: it makes the tailnet misbehave.

// DropStreams ends every map stream; nodes come back by themselves.
func (n *Net) DropStreams() { n.endStreams() }

// SetDelay holds every map frame back.
func (n *Net) SetDelay(d time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.delay = d
}

// SendRaw sends one map frame to a node as it is, on top of what the tailnet
// tells it. The frame must be the JSON of a MapResponse.
func (n *Net) SendRaw(name string, frame []byte) error {
	if !json.Valid(frame) {
		return fmt.Errorf("devnet: frame is no JSON: %q", frame)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	m, err := n.byName(name)
	if err != nil {
		return err
	}
	if m.stream == nil {
		return fmt.Errorf("devnet: node %q has no map stream", name)
	}
	select {
	case m.stream.raw <- frame:
		return nil
	default:
		return fmt.Errorf("devnet: node %q does not read its map stream", name)
	}
}

// SendMap is SendRaw for a MapResponse.
func (n *Net) SendMap(name string, resp *control.MapResponse) error {
	b, err := json.Marshal(resp)
	if err != nil {
		return fmt.Errorf("devnet: %w", err)
	}
	return n.SendRaw(name, b)
}

// syntheticID is the first ID of synthetic peers.
const syntheticID = 1 << 40

// SetSyntheticPeers gives every node count peers that exist on the map only.
func (n *Net) SetSyntheticPeers(count int) error {
	peers := make([]*member, 0, count)
	online := time.Now().UTC()
	for i := range count {
		addrs, err := addressesFor(uint32(1<<21 + i))
		if err != nil {
			return err
		}
		peers = append(peers, &member{
			ID: netmap.NodeID(syntheticID + i), StableID: netmap.StableID(fmt.Sprintf("s%d", i)),
			Name: fmt.Sprintf("synthetic-%d", i), Key: key.NodePublicFromRaw(syntheticKey(i)), Disco: key.DiscoPublicFromRaw(syntheticKey(i)),
			Addresses: addrs, Approved: true, Created: online, LastSeen: online, HomeDERP: 1, Cap: control.CapabilityVersion,
			Endpoints: []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, 1}), 41641)},
			Hostinfo:  &control.Hostinfo{OS: "linux", Hostname: fmt.Sprintf("synthetic-%d", i)},
		})
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range peers {
		n.version++
		p.version = n.version
	}
	n.synthetic = peers
	n.changed()
	return nil
}

// syntheticKey is a public key that nobody has the private half of.
func syntheticKey(i int) (raw [key.Size]byte) {
	raw[0], raw[1], raw[2], raw[3], raw[31] = byte(i), byte(i>>8), byte(i>>16), byte(i>>24), 0x42
	return raw
}
