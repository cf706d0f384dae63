package devnet

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/seed94491740/tsnode/devnet/internal/policy"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
)

// A tailnet is all state of a Net: who is a member, and what each may see. Its
// methods take the time and do no I/O but save; one goroutine calls them.
type tailnet struct {
	cfg     Config
	private key.MachinePrivate
	regions []*region
	members map[netmap.NodeID]*member
	keys    map[string]*authKey // by text
	users   []string            // names; a UserID is an index plus one
	logins  map[string]*login   // by token
	calls   map[string]chan<- []byte

	nextID   netmap.NodeID
	nextAddr uint32

	policy  *policy.Policy
	rights  rights
	dns     *netmap.DNSConfig
	records []netmap.DNSRecord // set by nodes
	faults  faults

	version uint64 // grows with each change that a map shows
	unsaved bool
}

// faults are what tests have asked for.
type faults struct {
	synthetic []*member
	delay     time.Duration  // before each map frame
	failures  map[string]int // HTTP status by path
}

// newTailnet reads the stored state, if there is any.
func newTailnet(c Config, now time.Time) (*tailnet, error) {
	p, err := parsePolicy(c)
	if err != nil {
		return nil, err
	}
	t := &tailnet{
		cfg: c, private: key.NewMachine(), policy: p, rights: rights{stale: true}, nextID: 1, nextAddr: 1, dns: defaultDNS(c.Domain),
		members: make(map[netmap.NodeID]*member), keys: make(map[string]*authKey), logins: make(map[string]*login),
		calls: make(map[string]chan<- []byte), faults: faults{failures: make(map[string]int)},
	}
	if err := t.load(now); err != nil {
		return nil, err
	}
	return t, nil
}

func parsePolicy(c Config) (*policy.Policy, error) {
	p, err := policy.Parse(c.Policy, c.Domain)
	if err != nil {
		return nil, fmt.Errorf("devnet: %w", err)
	}
	return p, nil
}

// changed notes a change that some map shows.
func (t *tailnet) changed() { t.version++; t.unsaved = true }

// touch notes a change of a member that its peers are told as a whole Node.
func (t *tailnet) touch(m *member) {
	t.changed()
	m.version = t.version
}

// regroup notes a change of who is who: memberships, owners, tags, routes,
// policy. What the policy means is compiled anew.
func (t *tailnet) regroup() {
	t.changed()
	t.rights.stale = true
}

// setLive replaces what others learn of a member by patch.
func (t *tailnet) setLive(m *member, l live) {
	if !m.live.equal(&l) {
		m.live = &l
		t.changed()
	}
}

// sorted returns the members by ID.
func (t *tailnet) sorted() []*member {
	return slices.SortedFunc(maps.Values(t.members), func(a, b *member) int { return int(a.ID - b.ID) })
}

// byName returns the member of that name, nil if there is none.
func (t *tailnet) byName(name string) *member {
	for _, m := range t.members {
		if m.Name == name {
			return m
		}
	}
	return nil
}

// byKey returns the member with a node key, nil if there is none.
func (t *tailnet) byKey(k key.NodePublic) *member {
	for _, m := range t.members {
		if m.Key == k {
			return m
		}
	}
	return nil
}

// remove forgets a member.
func (t *tailnet) remove(m *member) {
	delete(t.members, m.ID)
	m.endStreams()
	t.regroup()
}

// userID returns the number of a user, whom it makes if new.
func (t *tailnet) userID(name string) netmap.UserID {
	if name == "" {
		name = DefaultUser
	}
	if i := slices.Index(t.users, name); i >= 0 {
		return netmap.UserID(i + 1)
	}
	t.users = append(t.users, name)
	return netmap.UserID(len(t.users))
}

// taggedDevices owns all nodes with tags, which belong to nobody (control.md
// section 13.5, SVC-119).
const taggedDevices netmap.UserID = 2147455555

// profile returns a user as the map shows him.
func (t *tailnet) profile(id netmap.UserID) netmap.UserProfile {
	if id == taggedDevices {
		return netmap.UserProfile{ID: id, LoginName: "tagged-devices", DisplayName: "Tagged Devices"}
	}
	return netmap.UserProfile{ID: id, LoginName: t.loginOf(id), DisplayName: t.users[id-1]}
}

// loginOf returns a user's name in the form of a mail address.
func (t *tailnet) loginOf(id netmap.UserID) string {
	name := t.users[id-1]
	if strings.Contains(name, "@") {
		return name
	}
	return name + "@" + t.cfg.Domain
}

// longWait is a wait for nothing in particular.
const longWait = time.Hour

// wait returns how long advance has nothing to do.
func (t *tailnet) wait(now time.Time) time.Duration {
	d := longWait
	for _, m := range t.members {
		if at := m.forgetAt(t.cfg.EphemeralTimeout); !at.IsZero() {
			d = min(d, at.Sub(now))
		}
		if !m.KeyExpiry.IsZero() && !m.toldExpired {
			d = min(d, m.KeyExpiry.Sub(now))
		}
	}
	for _, l := range t.logins {
		d = min(d, l.began.Add(loginLifetime).Sub(now))
	}
	return max(d, 0)
}

// advance does what is due: it forgets ephemeral nodes that have stayed away and
// logins that nobody has approved, and tells of keys that have expired.
func (t *tailnet) advance(now time.Time) {
	for _, m := range t.sorted() {
		if at := m.forgetAt(t.cfg.EphemeralTimeout); !at.IsZero() && !now.Before(at) {
			t.remove(m)
			continue
		}
		if m.expired(now) && !m.toldExpired {
			m.toldExpired = true
			t.touch(m)
		}
	}
	for token, l := range t.logins {
		if !now.Before(l.began.Add(loginLifetime)) {
			delete(t.logins, token)
			l.decide("")
		}
	}
}

// defaultDNS turns MagicDNS on for the tailnet's own names and addresses
// (SVC-68).
func defaultDNS(domain string) *netmap.DNSConfig {
	routes := map[string][]netmap.Resolver{domain: {}, "0.e.1.a.c.5.1.1.a.7.d.f.ip6.arpa": {}}
	for i := 64; i <= 127; i++ {
		routes[fmt.Sprintf("%d.100.in-addr.arpa", i)] = []netmap.Resolver{}
	}
	return &netmap.DNSConfig{Proxied: true, Domains: []string{domain}, Routes: routes}
}

// randomHex returns so many random bytes in hex.
func randomHex(bytes int) string {
	b := make([]byte, bytes)
	rand.Read(b) // never fails (crypto/rand)
	return hex.EncodeToString(b)
}
