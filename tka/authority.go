package tka

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
)

// Bounds of what an authority remembers.
const (
	maxUpdates = 2000     // as far back as the reference client looks
	maxSize    = 10 << 20 // bytes of all updates; as much as a server sends at once

	// When there are more than compactAbove updates, those before a checkpoint are
	// forgotten that has keepUpdates after it. A branch that begins before it is
	// refused from then on.
	compactAbove = 1000
	keepUpdates  = 500
)

// An Authority is what a tailnet trusts: its updates since a checkpoint, and the
// keys that are trusted after the newest. It is immutable.
type Authority struct {
	updates []*update // each after the one it follows; the first is a checkpoint
	byHash  map[Hash]*update
	state   *state // after the newest update of the branch in force
}

// Bootstrap returns the authority that begins with a checkpoint, as the control
// server sends it to a node that has none. Nothing proves that it is the right
// one: a node trusts the first that it is told, and from then on no other.
func Bootstrap(genesis []byte) (*Authority, error) {
	u, err := parseUpdate(genesis)
	if err != nil {
		return nil, err
	}
	if u.kind != checkpoint {
		return nil, fmt.Errorf("tailnet lock begins with an update of kind %d, want a checkpoint", u.kind)
	}
	if err := u.checkpoint().verify(u); err != nil {
		return nil, fmt.Errorf("tailnet lock begins with an update that is not valid: %w", err)
	}
	return newAuthority([]*update{u})
}

// Open returns the authority that Updates was taken of. All of it is verified but
// the first update, which is trusted as it was then.
func Open(updates [][]byte) (*Authority, error) {
	if len(updates) == 0 {
		return nil, errors.New("tailnet lock: nothing is stored of it")
	}
	u, err := parseUpdate(updates[0])
	if err != nil {
		return nil, err
	}
	if u.kind != checkpoint {
		return nil, fmt.Errorf("tailnet lock: what is stored of it begins with an update of kind %d, want a checkpoint", u.kind)
	}
	a, err := newAuthority([]*update{u})
	if err != nil || len(updates) == 1 {
		return a, err
	}
	return a.Inform(updates[1:])
}

// Updates returns all updates, for Open.
func (a *Authority) Updates() [][]byte {
	all := make([][]byte, len(a.updates))
	for i, u := range a.updates {
		all[i] = u.raw
	}
	return all
}

// Head names the newest update in force.
func (a *Authority) Head() Hash { return a.state.last }

// Inform returns the authority with further updates, oldest first; those that are
// known already change nothing. When one of them is not valid, all are refused.
func (a *Authority) Inform(updates [][]byte) (*Authority, error) {
	n := &Authority{updates: slices.Clip(a.updates), byHash: make(map[Hash]*update, len(a.updates)+len(updates))}
	for _, u := range a.updates {
		n.byHash[u.hash] = u
	}
	states := map[Hash]*state{a.state.last: a.state}
	for i, b := range updates {
		if err := n.add(b, states); err != nil {
			return nil, fmt.Errorf("update %d of %d: %w", i, len(updates), err)
		}
	}
	n, err := newAuthority(n.compacted())
	if err != nil {
		return nil, err
	}
	return n, n.bounded()
}

// bounded tells of an authority that is too large to keep.
func (a *Authority) bounded() error {
	size := 0
	for _, u := range a.updates {
		size += len(u.raw)
	}
	if len(a.updates) > maxUpdates || size > maxSize {
		return fmt.Errorf("tailnet lock: %d updates of %d bytes, more than %d of %d", len(a.updates), size, maxUpdates, maxSize)
	}
	return nil
}

// add takes one update. states are those that are known by now.
func (a *Authority) add(b []byte, states map[Hash]*state) error {
	u, err := parseUpdate(b)
	if err != nil || a.byHash[u.hash] != nil {
		return err
	}
	parent, ok := u.parentHash()
	if !ok {
		return errParent
	}
	before := states[parent]
	if before == nil {
		if before, err = a.stateAt(parent); err != nil {
			return err
		}
	}
	if err := before.verify(u); err != nil {
		return err
	}
	after, err := before.apply(u)
	if err != nil {
		return err
	}
	states[u.hash] = after
	a.byHash[u.hash] = u
	a.updates = append(a.updates, u)
	return nil
}

// stateAt returns the state after an update that is known.
func (a *Authority) stateAt(h Hash) (*state, error) {
	var path []*update // from there back to a checkpoint
	for {
		u := a.byHash[h]
		if u == nil {
			return nil, fmt.Errorf("follows the update %v, which is not known", h)
		}
		if u.kind == checkpoint {
			return replay(u.checkpoint(), path)
		}
		path = append(path, u)
		h, _ = u.parentHash()
	}
}

// replay applies updates that were verified before, the newest first in path.
func replay(s *state, path []*update) (_ *state, err error) {
	for _, u := range slices.Backward(path) {
		if s, err = s.apply(u); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// newAuthority finds the branch in force.
func newAuthority(updates []*update) (*Authority, error) {
	a := &Authority{updates: updates, byHash: make(map[Hash]*update, len(updates)), state: updates[0].checkpoint()}
	next := make(map[Hash][]*update)
	for _, u := range updates {
		a.byHash[u.hash] = u
		if parent, ok := u.parentHash(); ok {
			next[parent] = append(next[parent], u)
		}
	}
	for branches := next[a.state.last]; len(branches) > 0; branches = next[a.state.last] {
		s, err := a.state.apply(a.state.choose(branches))
		if err != nil {
			return nil, err
		}
		a.state = s
	}
	return a, nil
}

// choose returns the update in force of several that follow the same one: that
// with the most votes; of equal ones, that which removes a key; of equal ones,
// that with the lowest hash.
func (s *state) choose(branches []*update) *update {
	best := branches[0]
	for _, u := range branches[1:] {
		if s.prefers(u, best) {
			best = u
		}
	}
	return best
}

func (s *state) prefers(a, b *update) bool {
	if wa, wb := s.weight(a), s.weight(b); wa != wb {
		return wa > wb
	}
	if ra, rb := a.kind == removeKey, b.kind == removeKey; ra != rb {
		return ra
	}
	return bytes.Compare(a.hash[:], b.hash[:]) < 0
}

// chain returns the branch in force, newest first.
func (a *Authority) chain() (all []*update) {
	for u := a.byHash[a.state.last]; u != nil; {
		all = append(all, u)
		parent, ok := u.parentHash()
		if !ok || u == a.updates[0] {
			break
		}
		u = a.byHash[parent]
	}
	return all
}

// compacted returns the updates without those that need not be kept.
func (a *Authority) compacted() []*update {
	if len(a.updates) <= compactAbove {
		return a.updates
	}
	full, err := newAuthority(a.updates)
	if err != nil {
		return a.updates // whoever asks meets the same error
	}
	for i, u := range full.chain() {
		if i >= keepUpdates && u.kind == checkpoint {
			return full.since(u)
		}
	}
	return a.updates
}

// since returns an update and all that follow it.
func (a *Authority) since(first *update) (kept []*update) {
	known := map[Hash]bool{first.hash: true}
	for _, u := range a.updates {
		parent, ok := u.parentHash()
		if u == first || ok && known[parent] {
			known[u.hash] = true
			kept = append(kept, u)
		}
	}
	return kept
}
