package node

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/seed94491740/tsnode/control"
	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/state"
)

// A profile is the node's stored identity. It implements control.Keys. A new
// login is only stored once the server has said who the node is (SVC-138), so
// what Save and identify bring meets here.
type profile struct {
	store state.Store
	log   *slog.Logger

	mu sync.Mutex
	p  *state.Profile
}

// openProfile reads the profile from the store.
func openProfile(ctx context.Context, s *settings) (*profile, error) {
	p, err := state.Load(ctx, s.store)
	if err != nil {
		return nil, err
	}
	stored := p.Prefs.ControlURL
	if stored == "" {
		stored = DefaultControlURL
	}
	if p.LoggedIn() && stored != s.controlURL {
		return nil, fmt.Errorf("the state belongs to a node of %s, not of %s: give this node a state of its own, or that control URL", stored, s.controlURL)
	}
	p.Prefs.ControlURL = s.controlURL
	p.Prefs.Hostname = s.hostname
	p.Prefs.AdvertiseTags = s.tags
	p.Prefs.WantRunning = true
	p.Prefs.LoggedOut = false
	return &profile{store: s.store, log: s.log, p: p}, nil
}

// Load implements control.Keys.
func (p *profile) Load(context.Context) (control.Credentials, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return control.Credentials{Node: p.p.Node, OldNode: p.p.OldNode, User: p.p.User}, nil
}

// Save implements control.Keys.
func (p *profile) Save(ctx context.Context, c control.Credentials) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.Node.IsZero() {
		return p.forget(ctx)
	}
	p.p.Node, p.p.OldNode, p.p.User = c.Node, c.OldNode, c.User
	return p.p.Save(ctx, p.store)
}

// forget removes the login after a logout; the machine key stays.
func (p *profile) forget(ctx context.Context) error {
	if err := state.SaveLock(ctx, p.store, nil); err != nil {
		return err
	}
	if p.p.ID != "" {
		if err := p.p.Delete(ctx, p.store); err != nil {
			return err
		}
	}
	fresh, err := state.Load(ctx, p.store)
	if err != nil {
		return err
	}
	fresh.Prefs, fresh.Lock = p.p.Prefs, p.p.Lock
	p.p = fresh
	return nil
}

// saveTimeout bounds a write of the store.
const saveTimeout = 30 * time.Second // as a Kubernetes store's; SVC-140

// identify stores who the netmap says we are, when that is new.
func (p *profile) identify(ctx context.Context, nm *netmap.Netmap) {
	ctx, cancel := context.WithTimeout(ctx, saveTimeout)
	defer cancel()
	p.mu.Lock()
	defer p.mu.Unlock()
	user := nm.Users[nm.Self.User]
	tailnet := state.Tailnet{MagicDNSName: nm.MagicDNSSuffix(), DomainName: nm.Domain, DisplayName: nm.Domain}
	if p.p.NodeID == nm.Self.StableID && p.p.Tailnet == tailnet && sameUser(p.p.User, user) && p.p.ID != "" {
		return
	}
	if p.p.Node.Public() != nm.Self.Key {
		return // of a login that is over, or not stored yet
	}
	p.p.NodeID, p.p.Tailnet = nm.Self.StableID, tailnet
	if user.ID != 0 {
		p.p.User = user
	}
	if err := p.p.Save(ctx, p.store); err != nil {
		p.log.Error("cannot store this node's identity: it will have to log in again", "err", err)
	}
}

func sameUser(a, b netmap.UserProfile) bool {
	return b.ID == 0 || a.ID == b.ID && a.LoginName == b.LoginName && a.DisplayName == b.DisplayName
}
