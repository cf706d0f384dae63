package devnet

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
)

// A Net is a running tailnet. Its methods may be called from any goroutine.
type Net struct {
	cfg     Config
	log     *slog.Logger
	control *controlServer
	relays  []*region
	cancel  context.CancelFunc
	done    chan struct{} // closed when all servers have ended
	close   sync.Once

	generation actor.Cell[uint64] // grows with each change of anything that a map shows

	mu        sync.Mutex // guards what follows
	private   key.MachinePrivate
	members   map[netmap.NodeID]*member
	keys      map[string]*authKey
	users     []string            // login names; a UserID is an index plus one
	logins    map[string]*pending // by token of the login URL
	nextID    netmap.NodeID
	nextAddr  uint32
	version   uint64
	policy    *policy
	synthetic []*member
	delay     time.Duration // before each map frame
	closed    bool
}

// An authKey is one that was given out. Its exported fields are stored.
type authKey struct {
	KeyOptions
	Expires time.Time // zero: never
	Used    bool      // of a key for one node
}

// Start starts a tailnet; ctx bounds the starting only.
func Start(ctx context.Context, c Config) (*Net, error) {
	if err := c.complete(); err != nil {
		return nil, err
	}
	p, err := parsePolicy(c.Policy)
	if err != nil {
		return nil, err
	}
	n := &Net{
		cfg: c, log: c.Logger, policy: p, private: key.NewMachine(), done: make(chan struct{}),
		members: make(map[netmap.NodeID]*member), keys: make(map[string]*authKey), logins: make(map[string]*pending),
		nextID: 1, nextAddr: 1,
	}
	if err := n.load(); err != nil {
		return nil, err
	}
	return n, n.serve(ctx)
}

// serve opens all sockets, or none, and runs the servers.
func (n *Net) serve(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			for _, r := range n.relays {
				r.stop()
			}
		}
	}()
	for id := 1; id <= n.cfg.Relays; id++ {
		r, err := newRegion(id, n.log)
		if err != nil {
			return err
		}
		n.relays = append(n.relays, r)
		if err := r.start(ctx); err != nil {
			return err
		}
	}
	if n.control, err = newControlServer(ctx, n); err != nil {
		return err
	}
	run, cancel := context.WithCancel(context.Background())
	n.cancel = cancel
	go func() {
		defer close(n.done)
		n.control.serve(run)
	}()
	return nil
}

// Close ends the tailnet: control server, relays and STUN. Nodes go on by
// themselves, without.
func (n *Net) Close() error {
	n.close.Do(func() {
		n.mu.Lock()
		n.closed = true
		for _, m := range n.members {
			if m.forget != nil {
				m.forget.Stop()
			}
		}
		n.mu.Unlock()
		n.cancel()
		<-n.done
		for _, r := range n.relays {
			r.stop()
		}
	})
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.save()
}

// URL returns that of the control server.
func (n *Net) URL() string { return "http://" + n.control.addr }

// Domain returns the DNS suffix of the tailnet.
func (n *Net) Domain() string { return n.cfg.Domain }

// AuthKey makes an auth key.
func (n *Net) AuthKey(o KeyOptions) string {
	text := "tskey-auth-" + randomHex(16)
	k := &authKey{KeyOptions: o}
	if o.Lifetime != 0 {
		k.Expires = time.Now().Add(o.Lifetime)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.keys[text] = k
	n.saveOrLog()
	return text
}

// RevokeKey makes an auth key invalid; nodes that have joined with it stay.
func (n *Net) RevokeKey(text string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.keys, text)
	n.saveOrLog()
}

func randomHex(bytes int) string {
	b := make([]byte, bytes)
	rand.Read(b)
	return hex.EncodeToString(b)
}

// A NodeInfo tells about one member.
type NodeInfo struct {
	ID        netmap.NodeID
	Name      string // first label of its DNS name
	Addresses []netip.Addr
	Key       key.NodePublic
	User      string
	Tags      []string
	Ephemeral bool
	Approved  bool
	Online    bool
	Expired   bool
	HomeDERP  int
}

// Nodes returns all members, in the order they have joined.
func (n *Net) Nodes() (all []NodeInfo) {
	n.mu.Lock()
	defer n.mu.Unlock()
	now := time.Now()
	for _, id := range slices.Sorted(maps.Keys(n.members)) {
		m := n.members[id]
		info := NodeInfo{
			ID: m.ID, Name: m.Name, Key: m.Key, User: n.users[m.User-1], Tags: m.Tags, Ephemeral: m.Ephemeral,
			Approved: m.Approved, Online: m.stream != nil, Expired: m.expired(now), HomeDERP: m.HomeDERP,
		}
		for _, p := range m.Addresses {
			info.Addresses = append(info.Addresses, p.Addr())
		}
		all = append(all, info)
	}
	return all
}

// changed tells all map streams to look; n.mu is held.
func (n *Net) changed() { n.generation.Store(n.generation.Get() + 1) }

// touch marks a member as changed for its peers; n.mu is held.
func (n *Net) touch(m *member) {
	n.version++
	m.version = n.version
	n.changed()
	n.saveOrLog()
}

// saveOrLog stores the state; n.mu is held.
func (n *Net) saveOrLog() {
	if err := n.save(); err != nil {
		n.log.Error("devnet cannot store its state", "err", err)
	}
}

// byName returns the member of that name; n.mu is held.
func (n *Net) byName(name string) (*member, error) {
	for _, m := range n.members {
		if m.Name == name {
			return m, nil
		}
	}
	return nil, fmt.Errorf("%w: %q", ErrNoNode, name)
}

// withNode runs f on a member and tells everybody.
func (n *Net) withNode(name string, f func(m *member)) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	m, err := n.byName(name)
	if err != nil {
		return err
	}
	f(m)
	n.touch(m)
	return nil
}

// Remove removes a node from the tailnet.
func (n *Net) Remove(name string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	m, err := n.byName(name)
	if err != nil {
		return err
	}
	n.remove(m)
	return nil
}

// remove forgets a member; n.mu is held.
func (n *Net) remove(m *member) {
	delete(n.members, m.ID)
	if m.stream != nil {
		m.stream.cancel()
	}
	if m.forget != nil {
		m.forget.Stop()
	}
	n.changed()
	n.saveOrLog()
}

// ExpireKey makes a node's key expire now.
func (n *Net) ExpireKey(name string) error {
	return n.withNode(name, func(m *member) { m.KeyExpiry = time.Now() })
}

// SetKeyExpiry sets when a node's key expires; the zero time means never.
func (n *Net) SetKeyExpiry(name string, at time.Time) error {
	return n.withNode(name, func(m *member) { m.KeyExpiry = at })
}

// ApproveNode lets a node in that waits for approval.
func (n *Net) ApproveNode(name string) error {
	return n.withNode(name, func(m *member) { m.Approved = true })
}

// ApproveRoutes lets a node carry the routes for others.
func (n *Net) ApproveRoutes(name string, routes ...netip.Prefix) error {
	return n.withNode(name, func(m *member) { m.Routes = routes })
}

// SetPolicy replaces the policy, HuJSON; nodes learn of it at once. A policy
// with an error changes nothing.
func (n *Net) SetPolicy(hujson []byte) error {
	p, err := parsePolicy(hujson)
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.policy = p
	n.changed()
	return nil
}

// userID returns the number of a user, whom it makes if new; n.mu is held.
func (n *Net) userID(login string) netmap.UserID {
	if login == "" {
		login = "dev"
	}
	if i := slices.Index(n.users, login); i >= 0 {
		return netmap.UserID(i + 1)
	}
	n.users = append(n.users, login)
	return netmap.UserID(len(n.users))
}

var errClosed = errors.New("devnet: closed")
