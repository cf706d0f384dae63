package devnet

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/seed94491740/tsnode/devnet/internal/policy"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
)

// AuthKey makes an auth key. One with a malformed tag is refused when a node
// uses it.
func (n *Net) AuthKey(o KeyOptions) string {
	text := "tskey-auth-" + randomHex(16)
	if n.cfg.Headscale {
		text = "hskey-auth-" + randomHex(16)
	}
	o.Tags = slices.Clone(o.Tags)
	n.do(func(t *tailnet, now time.Time) { // closed: then the key is as good as any
		k := &authKey{KeyOptions: o}
		if o.Lifetime != 0 {
			k.Expires = now.Add(o.Lifetime)
		}
		t.keys[text] = k
		t.unsaved = true
	})
	return text
}

// RevokeKey makes an auth key invalid; nodes that have joined with it stay.
func (n *Net) RevokeKey(text string) error {
	return n.do(func(t *tailnet, _ time.Time) {
		delete(t.keys, text)
		t.unsaved = true
	})
}

// A NodeInfo tells about one member. It is a copy.
type NodeInfo struct {
	ID        netmap.NodeID
	Name      string // first label of its DNS name
	Hostname  string // as it calls itself
	Addresses []netip.Addr
	Key       key.NodePublic
	Machine   key.MachinePublic
	User      string // without meaning when there are tags
	Tags      []string
	Ephemeral bool
	Approved  bool
	Expired   bool
	KeyExpiry time.Time // zero: never

	Online    bool // has a map stream
	LastSeen  time.Time
	HomeDERP  int
	Endpoints []netip.AddrPort
	Offers    []netip.Prefix // routes it offers
	Routes    []netip.Prefix // of those, the ones that lead to it now
	Version   int            // its capability version
}

// Nodes returns all members, in the order they have joined. After Close it
// returns none.
func (n *Net) Nodes() (all []NodeInfo) {
	n.do(func(t *tailnet, now time.Time) { // closed: none
		for _, m := range t.sorted() {
			all = append(all, t.info(m, now))
		}
	})
	return all
}

func (t *tailnet) info(m *member, now time.Time) NodeInfo {
	i := NodeInfo{
		ID: m.ID, Name: m.Name, Key: m.Key, Machine: m.Machine, User: t.users[m.User-1], Tags: slices.Clone(m.Tags),
		Ephemeral: m.Ephemeral, Approved: m.Approved, Expired: m.expired(now), KeyExpiry: m.KeyExpiry,
		Online: m.live.Online, LastSeen: m.live.LastSeen, HomeDERP: m.live.HomeDERP,
		Endpoints: slices.Clone(m.live.Endpoints), Routes: slices.Clone(m.primary), Version: m.live.Cap,
	}
	for _, p := range m.Addresses {
		i.Addresses = append(i.Addresses, p.Addr())
	}
	if h := m.Hostinfo; h != nil {
		i.Hostname, i.Offers = h.Hostname, slices.Clone(h.RoutableIPs)
	}
	return i
}

// Node returns the member of that name.
func (n *Net) Node(name string) (info NodeInfo, err error) {
	err = n.withNode(name, func(t *tailnet, m *member, now time.Time) error {
		info = t.info(m, now)
		return nil
	})
	return info, err
}

// Await waits until the members are as wanted. It looks whenever one of them
// changes.
func (n *Net) Await(ctx context.Context, wanted func([]NodeInfo) bool) error {
	for {
		_, changed := n.changes.Load()
		all := n.Nodes()
		if wanted(all) {
			return nil
		}
		select {
		case <-changed:
		case <-n.gone:
			return ErrClosed
		case <-ctx.Done():
			return fmt.Errorf("devnet: nodes are not as wanted, but %+v: %w", all, context.Cause(ctx))
		}
	}
}

// AwaitOnline waits until the named nodes have a map stream.
func (n *Net) AwaitOnline(ctx context.Context, names ...string) error {
	return n.Await(ctx, func(all []NodeInfo) bool {
		online := 0
		for _, i := range all {
			if i.Online && slices.Contains(names, i.Name) {
				online++
			}
		}
		return online == len(names)
	})
}

// Remove removes a node from the tailnet. It has to join anew.
func (n *Net) Remove(name string) error {
	return n.withNode(name, func(t *tailnet, m *member, _ time.Time) error {
		t.remove(m)
		return nil
	})
}

// Rename gives a node another name, which must be free and a DNS label. From
// then on its name no longer follows its host name.
func (n *Net) Rename(name, to string) error {
	return n.withNode(name, func(t *tailnet, m *member, _ time.Time) error {
		switch o := t.byName(to); {
		case cleanName(to) != to:
			return fmt.Errorf("devnet: name %q: want lower case letters, digits and hyphens", to)
		case o != nil && o != m:
			return fmt.Errorf("devnet: name %q is taken", to)
		}
		m.Name, m.Renamed = to, true
		t.touch(m)
		return nil
	})
}

// ExpireKey makes a node's key expire now.
func (n *Net) ExpireKey(name string) error {
	return n.withNode(name, func(t *tailnet, m *member, now time.Time) error {
		m.setExpiry(now.UTC(), now)
		t.touch(m)
		return nil
	})
}

// SetKeyExpiry sets when a node's key expires; the zero time means never.
func (n *Net) SetKeyExpiry(name string, at time.Time) error {
	return n.withNode(name, func(t *tailnet, m *member, now time.Time) error {
		m.setExpiry(at.UTC(), now)
		t.touch(m)
		return nil
	})
}

// ApproveNode lets a node in that waits for approval.
func (n *Net) ApproveNode(name string) error { return n.setApproved(name, true) }

// RevokeNode takes the approval of a node back.
func (n *Net) RevokeNode(name string) error { return n.setApproved(name, false) }

func (n *Net) setApproved(name string, approved bool) error {
	return n.withNode(name, func(t *tailnet, m *member, _ time.Time) error {
		m.Approved = approved
		t.touch(m)
		t.regroup()
		return nil
	})
}

// ApproveRoutes says which of the routes that a node offers lead to it, in place
// of those approved before: subnets, or 0.0.0.0/0 and ::/0 for an exit node.
func (n *Net) ApproveRoutes(name string, routes ...netip.Prefix) error {
	for i, r := range routes {
		if !r.IsValid() || r.Masked() != r {
			return fmt.Errorf("devnet: route %d, %v, is no prefix without host bits", i, r)
		}
	}
	return n.withNode(name, func(t *tailnet, m *member, _ time.Time) error {
		m.Routes = slices.Clone(routes)
		t.regroup()
		return nil
	})
}

// SetTags replaces a node's tags. A node without tags belongs to its user.
func (n *Net) SetTags(name string, tags ...string) error {
	for _, tag := range tags {
		if err := policy.CheckTag(tag); err != nil {
			return fmt.Errorf("devnet: %w", err)
		}
	}
	return n.withNode(name, func(t *tailnet, m *member, _ time.Time) error {
		m.Tags = slices.Sorted(slices.Values(tags))
		t.touch(m)
		t.regroup()
		return nil
	})
}

// SetAttributes replaces the attributes that a node has beside those of the
// policy's nodeAttrs section (control.md section 9.4).
func (n *Net) SetAttributes(name string, attrs netmap.CapMap) error {
	return n.withNode(name, func(t *tailnet, m *member, _ time.Time) error {
		m.CapMap = attrs
		t.touch(m)
		t.regroup()
		return nil
	})
}

// SetPolicy replaces the policy; nodes learn of it at once. A policy with an
// error changes nothing.
//
// It is HuJSON in the form of the hosted service: "groups", "hosts", "acls",
// "grants" with "ip" and "app", "tagOwners", "autoApprovers", "nodeAttrs".
// Sources and destinations are *, tag:NAME, group:NAME, USER@, a host, an
// address, a prefix, or autogroup:member, :tagged, :self, :internet. Other
// sections are read over.
func (n *Net) SetPolicy(hujson []byte) error {
	p, err := policy.Parse(hujson, n.cfg.Domain)
	if err != nil {
		return fmt.Errorf("devnet: %w", err)
	}
	return n.do(func(t *tailnet, _ time.Time) {
		t.policy = p
		t.regroup()
	})
}

// SetDNS replaces the DNS configuration, which is the same for all nodes. The
// default turns MagicDNS on for the tailnet's own names.
func (n *Net) SetDNS(c netmap.DNSConfig) error {
	return n.do(func(t *tailnet, _ time.Time) {
		t.dns = &c
		t.changed()
	})
}

// DNSRecords returns the records that nodes have set, as they do to obtain
// certificates, oldest first.
func (n *Net) DNSRecords() (all []netmap.DNSRecord) {
	n.do(func(t *tailnet, _ time.Time) { all = slices.Clone(t.records) }) // closed: none
	return all
}
