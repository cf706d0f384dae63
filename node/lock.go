package node

import (
	"context"
	"fmt"

	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/state"
)

// LoadLock implements control.LockStore.
func (p *profile) LoadLock(ctx context.Context) ([][]byte, error) {
	return state.LoadLock(ctx, p.store)
}

// SaveLock implements control.LockStore.
func (p *profile) SaveLock(ctx context.Context, updates [][]byte) error {
	return state.SaveLock(ctx, p.store, updates)
}

// lockKey returns the key by which this node renews its signature.
func (p *profile) lockKey() key.LockPrivate {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.p.Lock
}

// locked returns how it stands with tailnet lock, which is on.
func (r *runtime) locked(nm *netmap.Netmap) TailnetLocked {
	switch {
	case nm.Lock == nil:
		return TailnetLocked{}
	case nm.Lock.Signed:
		return TailnetLocked{Verified: true}
	}
	sign := fmt.Sprintf("tailscale lock sign %v %s", nm.Self.Key, r.profile.lockKey().Public().CLIString())
	return TailnetLocked{Verified: true, Sign: sign}
}

// lockProblems says what an operator should know of tailnet lock (SVC-143,
// SVC-144).
func (r *runtime) lockProblems(nm *netmap.Netmap) (problems []string) {
	if !nm.LockEnabled {
		return nil
	}
	l := r.locked(nm)
	if !l.Verified {
		problems = append(problems, "tailnet lock is on and its signatures are not verified yet: this node talks to no peer")
	}
	if l.Sign != "" {
		problems = append(problems, "tailnet lock is on and this node is not signed: other nodes do not talk to it; on a node that may sign run: "+l.Sign)
	}
	if nm.Lock != nil && nm.Lock.LeftOut > 0 {
		problems = append(problems, fmt.Sprintf("tailnet lock keeps out %d nodes without a valid signature", nm.Lock.LeftOut))
	}
	if err := r.control.Status.Get().Lock; err != nil {
		problems = append(problems, err.Error())
	}
	return problems
}
