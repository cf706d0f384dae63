package control

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
)

// A sentNode is what a netmap.Peer is made of: the part of Node that this node
// makes use of, in forms that cost little for a hundred thousand peers.
type sentNode struct {
	ID            netmap.NodeID
	StableID      netmap.StableID
	Name          string
	User, Sharer  netmap.UserID
	Key           key.NodePublic
	KeyExpiry     time.Time
	KeySignature  []byte
	Machine       key.MachinePublic
	DiscoKey      key.DiscoPublic
	Addresses     []netip.Prefix
	AllowedIPs    []netip.Prefix
	Endpoints     []netip.AddrPort
	PrimaryRoutes []netip.Prefix
	DERP          string
	HomeDERP      int
	Hostinfo      struct {
		OS, Hostname string
		Services     []Service
		Location     *Location
	}
	Created             time.Time
	Cap                 int
	Tags                []string
	LastSeen            *time.Time
	Online              *bool
	MachineAuthorized   bool
	Capabilities        []string
	CapMap              json.RawMessage
	UnsignedPeerAPIOnly bool
	Expired             bool
	IsWireGuardOnly     bool
	IsJailed            bool

	SelfNodeV4MasqAddrForThisPeer *netip.Addr
	SelfNodeV6MasqAddrForThisPeer *netip.Addr

	ExitNodeDNSResolvers []netmap.Resolver
}

// Bounds of what a nodeReader shares between peers.
const (
	maxShared    = 4096 // entries of each kind; more than that are not shared
	maxSharedLen = 4096 // bytes of a capability map as sent
)

// A nodeReader reads nodes and shares what repeats between them.
type nodeReader struct {
	old     *netmap.Netmap // may be nil
	strings map[string]string
	caps    map[string]netmap.CapMap
	tags    map[string][]string
}

func newNodeReader(old *netmap.Netmap) *nodeReader {
	return &nodeReader{
		old: old, strings: make(map[string]string), caps: make(map[string]netmap.CapMap), tags: make(map[string][]string),
	}
}

// readPeer reads one peer; nil for null. An unchanged peer is the one in force.
func (r *nodeReader) readPeer(d *json.Decoder) (*netmap.Peer, error) {
	var n *sentNode
	if err := d.Decode(&n); err != nil || n == nil {
		return nil, err
	}
	p, err := r.peer(n)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", n.Name, err)
	}
	if r.old != nil {
		if known, ok := r.old.PeerByID(p.ID); ok && samePeer(known, p) {
			return known, nil
		}
	}
	return p, nil
}

// readSelf reads this node; nil for null. The old form of its attributes is
// folded into the new one (section 9.2, step 4).
func (r *nodeReader) readSelf(d *json.Decoder) (*netmap.Peer, error) {
	var n *sentNode
	if err := d.Decode(&n); err != nil || n == nil {
		return nil, err
	}
	p, err := r.peer(n)
	if err != nil || len(n.Capabilities) == 0 {
		return p, err
	}
	all := make(netmap.CapMap, len(p.CapMap)+len(n.Capabilities))
	for _, c := range n.Capabilities {
		all[c] = nil
	}
	for c, values := range p.CapMap {
		all[c] = values
	}
	p.CapMap = all
	return p, nil
}

// peer normalises a node as control.md section 9.2 says (CTL-46).
func (r *nodeReader) peer(n *sentNode) (*netmap.Peer, error) {
	n.clean()
	caps, err := r.capMap(n.CapMap)
	if err != nil {
		return nil, err
	}
	p := &netmap.Peer{
		ID:       n.ID,
		StableID: n.StableID,
		Name:     n.Name,
		Hostname: shareHostname(n.Name, n.Hostinfo.Hostname),
		OS:       r.share(n.Hostinfo.OS),
		User:     n.User,
		Sharer:   n.Sharer,

		Key:          n.Key,
		Machine:      n.Machine,
		Disco:        n.DiscoKey,
		KeyExpiry:    instantOf(n.KeyExpiry),
		KeySignature: exact(n.KeySignature),

		Addresses:     exact(n.Addresses),
		PrimaryRoutes: exact(n.PrimaryRoutes),
		Endpoints:     exact(n.Endpoints),
		HomeDERP:      homeRegion(n.HomeDERP, n.DERP),

		Cap:     n.Cap,
		CapMap:  caps,
		Tags:    r.shareTags(n.Tags),
		Created: instantOf(n.Created),

		MasqV4: orZeroValue(n.SelfNodeV4MasqAddrForThisPeer),
		MasqV6: orZeroValue(n.SelfNodeV6MasqAddrForThisPeer),
		Exit:   exitOf(n),

		Authorized:          n.MachineAuthorized,
		Expired:             n.Expired,
		UnsignedPeerAPIOnly: n.UnsignedPeerAPIOnly,
		WireGuardOnly:       n.IsWireGuardOnly,
		Jailed:              n.IsJailed,
	}
	p.LastSeen = instantOf(orZeroValue(n.LastSeen))
	p.Online = onlineOf(n.Online)
	p.AllowedIPs = allowedIPs(n, p.Addresses)
	for _, s := range n.Hostinfo.Services {
		addService(p, s)
	}
	return p, nil
}

// clean drops what no good node has: addresses that are none, and names with a
// NUL byte (section 15, rule 10).
func (n *sentNode) clean() {
	invalid := func(p netip.Prefix) bool { return !p.IsValid() }
	n.Addresses = slices.DeleteFunc(n.Addresses, invalid)
	n.AllowedIPs = slices.DeleteFunc(n.AllowedIPs, invalid)
	n.PrimaryRoutes = slices.DeleteFunc(n.PrimaryRoutes, invalid)
	n.Endpoints = slices.DeleteFunc(n.Endpoints, func(a netip.AddrPort) bool { return !a.IsValid() })
	for _, s := range []*string{&n.Name, &n.Hostinfo.Hostname, &n.Hostinfo.OS} {
		if strings.ContainsRune(*s, 0) {
			*s = ""
		}
	}
}

// allowedIPs is steps 2 and 3 of section 9.2: nil means the addresses, and a
// peer exempt from tailnet lock gets nothing else (CTL-51).
func allowedIPs(n *sentNode, addresses []netip.Prefix) []netip.Prefix {
	if n.AllowedIPs == nil || n.UnsignedPeerAPIOnly || slices.Equal(n.AllowedIPs, addresses) {
		return addresses
	}
	return exact(n.AllowedIPs)
}

// exitOf returns what a node says of itself as a way to the Internet; nil for
// most.
func exitOf(n *sentNode) *netmap.Exit {
	at := n.Hostinfo.Location
	if at == nil && len(n.ExitNodeDNSResolvers) == 0 {
		return nil
	}
	e := &netmap.Exit{DNS: exact(n.ExitNodeDNSResolvers), Located: at != nil}
	if at != nil {
		e.Latitude, e.Longitude, e.Priority = at.Latitude, at.Longitude, at.Priority
	}
	return e
}

// legacyDERP is the address in front of the region in the old form of a home
// region (section 9.2, step 1).
const legacyDERP = "127.3.3.40:"

func homeRegion(home int, legacy string) int {
	text, ok := strings.CutPrefix(legacy, legacyDERP)
	if home != 0 || !ok {
		return home
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return 0
	}
	return int(n)
}

func addService(p *netmap.Peer, s Service) {
	switch s.Proto {
	case ServicePeerAPI4:
		p.PeerAPI4 = s.Port
	case ServicePeerAPI6:
		p.PeerAPI6 = s.Port
	case ServicePeerAPIDNS:
		p.PeerAPIDNS = true
	}
}

func onlineOf(b *bool) netmap.Online {
	switch {
	case b == nil:
		return netmap.OnlineUnknown
	case *b:
		return netmap.OnlineYes
	}
	return netmap.OnlineNo
}

func orZeroValue[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// exact returns s without room to grow, nil if it is empty.
func exact[T any](s []T) []T {
	if len(s) == 0 {
		return nil
	}
	return append(make([]T, 0, len(s)), s...)
}

// shareHostname returns the host name as part of the DNS name where it is.
func shareHostname(name, hostname string) string {
	if strings.HasPrefix(name, hostname) {
		return name[:len(hostname)]
	}
	return hostname
}

func (r *nodeReader) share(s string) string {
	if known, ok := r.strings[s]; ok {
		return known
	}
	if len(r.strings) < maxShared {
		r.strings[s] = s
	}
	return s
}

func (r *nodeReader) shareTags(tags []string) []string {
	if len(tags) == 0 {
		return nil
	}
	all := strings.Join(tags, "\x00")
	if known, ok := r.tags[all]; ok {
		return known
	}
	tags = exact(tags)
	for i := range tags {
		tags[i] = r.share(tags[i])
	}
	if len(r.tags) < maxShared {
		r.tags[all] = tags
	}
	return tags
}

// capMap decodes a capability map, once for all peers that have the same.
func (r *nodeReader) capMap(raw json.RawMessage) (netmap.CapMap, error) {
	if known, ok := r.caps[string(raw)]; ok || len(raw) == 0 {
		return known, nil
	}
	m, err := parseCapMap(raw)
	if err == nil && len(r.caps) < maxShared && len(raw) <= maxSharedLen {
		r.caps[string(raw)] = m
	}
	return m, err
}

// parseCapMap keeps values as they were sent; one that is no list counts as a
// list of none, because presence is what counts (CTL-54).
func parseCapMap(raw json.RawMessage) (netmap.CapMap, error) {
	var loose map[string]json.RawMessage
	if err := json.Unmarshal(raw, &loose); err != nil {
		return nil, fmt.Errorf("CapMap: %w", err)
	}
	if len(loose) == 0 {
		return nil, nil
	}
	m := make(netmap.CapMap, len(loose))
	for name, values := range loose {
		m[name] = nil
		if bytes.HasPrefix(bytes.TrimSpace(values), []byte("[")) {
			var list []json.RawMessage
			if err := json.Unmarshal(values, &list); err != nil {
				return nil, fmt.Errorf("CapMap[%q]: %w", name, err)
			}
			m[name] = exact(list)
		}
	}
	return m, nil
}

// samePeer reports whether two peers do not differ in anything.
func samePeer(a, b *netmap.Peer) bool {
	return a.ID == b.ID && a.StableID == b.StableID && a.Name == b.Name && a.Hostname == b.Hostname &&
		a.OS == b.OS && a.User == b.User && a.Sharer == b.Sharer &&
		a.Key == b.Key && a.Machine == b.Machine && a.Disco == b.Disco && a.KeyExpiry == b.KeyExpiry &&
		bytes.Equal(a.KeySignature, b.KeySignature) &&
		slices.Equal(a.Addresses, b.Addresses) && slices.Equal(a.AllowedIPs, b.AllowedIPs) &&
		slices.Equal(a.PrimaryRoutes, b.PrimaryRoutes) && slices.Equal(a.Endpoints, b.Endpoints) &&
		a.HomeDERP == b.HomeDERP && a.Cap == b.Cap && sameCaps(a.CapMap, b.CapMap) &&
		slices.Equal(a.Tags, b.Tags) && a.Created == b.Created && a.LastSeen == b.LastSeen && a.Online == b.Online &&
		a.MasqV4 == b.MasqV4 && a.MasqV6 == b.MasqV6 &&
		a.PeerAPI4 == b.PeerAPI4 && a.PeerAPI6 == b.PeerAPI6 && a.PeerAPIDNS == b.PeerAPIDNS &&
		a.Authorized == b.Authorized && a.Expired == b.Expired && a.UnsignedPeerAPIOnly == b.UnsignedPeerAPIOnly &&
		a.WireGuardOnly == b.WireGuardOnly && a.Jailed == b.Jailed && a.Exit.Same(b.Exit)
}

func sameCaps(a, b netmap.CapMap) bool {
	if len(a) != len(b) {
		return false
	}
	for name, values := range a {
		other, ok := b[name]
		if !ok || !slices.EqualFunc(values, other, func(x, y json.RawMessage) bool { return bytes.Equal(x, y) }) {
			return false
		}
	}
	return true
}
