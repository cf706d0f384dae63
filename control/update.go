package control

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/seed94491740/tsnode/netmap"
)

// An update is one frame of the map stream, decoded. Nodes are in the form of
// the netmap already; an unchanged peer is the one of the netmap in force.
type update struct {
	MapResponse // without Node, Peers and PeersChanged

	self    *netmap.Peer
	peers   []*netmap.Peer // sorted by ID; nil: unchanged
	changed []*netmap.Peer // in the order sent
}

// decodeUpdate reads the JSON of a MapResponse from r to its end. Peers are
// converted one by one, so that what it holds beside the result is one peer.
// old is the netmap in force, or nil: a peer equal to one of it is that one.
func decodeUpdate(r io.Reader, old *netmap.Netmap) (*update, error) {
	d := updateDecoder{json: json.NewDecoder(r), nodes: newNodeReader(old)}
	if err := d.object(); err != nil {
		return nil, fmt.Errorf("map response: %w", err)
	}
	if _, err := d.json.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("map response: data after its end")
	}
	u := &d.update
	if len(u.peers) == 0 {
		u.peers = nil // empty is unchanged (CTL-34)
	}
	slices.SortFunc(u.peers, func(a, b *netmap.Peer) int { return cmp.Compare(a.ID, b.ID) })
	return u, nil
}

type updateDecoder struct {
	json   *json.Decoder
	nodes  *nodeReader
	update update
}

// object reads the fields of the outer object.
func (d *updateDecoder) object() error {
	if err := d.delim('{'); err != nil {
		return err
	}
	for d.json.More() {
		name, err := d.json.Token()
		if err != nil {
			return err
		}
		if err := d.field(name.(string)); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return d.delim('}')
}

func (d *updateDecoder) field(name string) (err error) {
	switch name {
	case "Peers":
		d.update.peers, err = d.peers()
	case "PeersChanged":
		d.update.changed, err = d.peers()
	case "Node":
		d.update.self, err = d.nodes.readSelf(d.json)
	default:
		err = d.json.Decode(d.update.plain(name))
	}
	return err
}

// peers reads a list of nodes, or null.
func (d *updateDecoder) peers() ([]*netmap.Peer, error) {
	switch t, err := d.json.Token(); {
	case err != nil:
		return nil, err
	case t == nil:
		return nil, nil
	case t != json.Delim('['):
		return nil, fmt.Errorf("want a list, got %v", t)
	}
	var all []*netmap.Peer
	for d.json.More() {
		p, err := d.nodes.readPeer(d.json)
		if err != nil {
			return nil, fmt.Errorf("node %d: %w", len(all), err)
		}
		if p != nil {
			all = append(all, p)
		}
	}
	return all, d.delim(']')
}

func (d *updateDecoder) delim(want json.Delim) error {
	t, err := d.json.Token()
	if err == nil && t != want {
		err = fmt.Errorf("want %v, got %v", want, t)
	}
	return err
}

// plain returns where a field goes that is decoded as a whole; for an unknown
// one a place nobody looks at (CTL-03).
func (u *update) plain(name string) any {
	m := &u.MapResponse
	switch name {
	case "MapSessionHandle":
		return &m.MapSessionHandle
	case "Seq":
		return &m.Seq
	case "KeepAlive":
		return &m.KeepAlive
	case "PingRequest":
		return &m.PingRequest
	case "PopBrowserURL":
		return &m.PopBrowserURL
	case "DERPMap":
		return &m.DERPMap
	case "PeersRemoved":
		return &m.PeersRemoved
	case "PeersChangedPatch":
		return &m.PeersChangedPatch
	case "PeerSeenChange":
		return &m.PeerSeenChange
	case "OnlineChange":
		return &m.OnlineChange
	case "DNSConfig":
		return &m.DNSConfig
	case "Domain":
		return &m.Domain
	case "PacketFilter":
		return &m.PacketFilter
	case "PacketFilters":
		return &m.PacketFilters
	case "UserProfiles":
		return &m.UserProfiles
	case "Health":
		return &m.Health
	case "DisplayMessages":
		return &m.DisplayMessages
	case "ControlTime":
		return &m.ControlTime
	case "TKAInfo":
		return &m.TKAInfo
	case "Debug":
		return &m.Debug
	case "ControlDialPlan":
		return &m.ControlDialPlan
	}
	return new(skipped)
}

// skipped takes any JSON value and keeps nothing of it.
type skipped struct{}

func (*skipped) UnmarshalJSON([]byte) error { return nil }
