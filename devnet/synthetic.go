package devnet

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/seed94491740/tsnode/control"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
)

// Where synthetic peers begin, and how many there may be.
const (
	syntheticID   = 1 << 40 // first node ID
	syntheticAddr = 1 << 21 // first number of an address: the upper half of them
	maxSynthetic  = 1_000_000
)

// SetSyntheticPeers gives every node so many peers that exist on the map only,
// in place of those before; at most a million. They are offline.
func (n *Net) SetSyntheticPeers(count int) error {
	if count < 0 || count > maxSynthetic {
		return fmt.Errorf("devnet: %d synthetic peers: want 0 to %d", count, maxSynthetic)
	}
	peers := make([]*member, 0, count)
	now := time.Now().UTC()
	for number := uint32(syntheticAddr); len(peers) < count; number++ {
		addrs, ok, err := addressesFor(number)
		if err != nil {
			return fmt.Errorf("devnet: %d synthetic peers: %w", count, err)
		}
		if ok {
			peers = append(peers, syntheticPeer(len(peers), addrs, now))
		}
	}
	return n.do(func(t *tailnet, _ time.Time) {
		t.changed()
		for _, p := range peers {
			p.version = t.version
		}
		t.faults.synthetic = peers
	})
}

// A SyntheticPeer is what can be changed of a peer that exists on the map only.
type SyntheticPeer struct {
	Name   string   // a DNS label that no other node has
	Tags   []string // each "tag:NAME"
	Online bool
}

// EditSyntheticPeers has edit change synthetic peers; it is called for each of them
// with its number, from 0. Nodes hear of those that it has changed.
func (n *Net) EditSyntheticPeers(edit func(number int, p *SyntheticPeer)) error {
	return n.do(func(t *tailnet, now time.Time) {
		for i, m := range t.faults.synthetic {
			p := SyntheticPeer{m.Name, slices.Clone(m.Tags), m.live.Online}
			edit(i, &p)
			if p.Name != m.Name || !slices.Equal(p.Tags, m.Tags) {
				m.Name, m.Tags = p.Name, p.Tags
				t.touch(m)
			}
			if p.Online != m.live.Online {
				l := *m.live
				l.Online, l.LastSeen = p.Online, time.Time{}
				if !p.Online {
					l.LastSeen = now.UTC()
				}
				t.setLive(m, l)
			}
		}
	})
}

// syntheticPeer makes the i-th peer. Nobody has the private half of its keys.
func syntheticPeer(i int, addrs []netip.Prefix, now time.Time) *member {
	var raw [key.Size]byte
	binary.LittleEndian.PutUint64(raw[:], uint64(i))
	raw[key.Size-1] = 0x42
	name := fmt.Sprintf("synthetic-%d", i)
	return &member{
		record: record{
			ID: netmap.NodeID(syntheticID + i), StableID: netmap.StableID(fmt.Sprintf("s%dCNTRL", i)), Name: name,
			Key: key.NodePublicFromRaw(raw), Addresses: addrs, Approved: true, Created: now,
			Hostinfo: &control.Hostinfo{OS: "linux", Hostname: name},
		},
		live: &live{
			HomeDERP: 1, Disco: key.DiscoPublicFromRaw(raw), Cap: control.CapabilityVersion, LastSeen: now,
			Endpoints: []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, 1}), 41641)}, // TEST-NET-1, RFC 5737
		},
	}
}
