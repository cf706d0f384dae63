package tka

import (
	"errors"
	"fmt"
	"slices"
)

var (
	errUnsigned   = errors.New("no signature")
	errParent     = errors.New("does not follow the update it claims to follow")
	errKeyUnknown = errors.New("names a key that is not trusted")
)

// verify checks that u may follow s: it is signed, and only by keys that s
// trusts.
func (s *state) verify(u *update) error {
	if len(u.signatures) == 0 {
		return errUnsigned
	}
	digest := u.digest()
	for i, sig := range u.signatures {
		k := s.find(sig.keyID)
		if k < 0 {
			return fmt.Errorf("signature %d %w", i, errKeyUnknown)
		}
		if !s.keys[k].verify(digest, sig.sig) {
			return fmt.Errorf("signature %d is wrong", i)
		}
	}
	return nil
}

// apply returns the state after u, which verify has found good.
func (s *state) apply(u *update) (*state, error) {
	if parent, ok := u.parentHash(); !ok || parent != s.last {
		return nil, errParent
	}
	n := *s
	n.last = u.hash
	var err error
	switch u.kind {
	case addKey:
		if s.find(u.key.public) >= 0 {
			return nil, errors.New("adds a key that is trusted already")
		}
		n.keys = append(slices.Clip(s.keys), *u.key)
	case removeKey:
		n.keys, err = s.without(u.keyID)
	case updateKey:
		n.keys, err = s.changed(u)
	case checkpoint:
		if u.state.id1 != s.id1 || u.state.id2 != s.id2 {
			return nil, errors.New("is of another authority")
		}
		return u.checkpoint(), nil
	}
	return &n, err
}

// checkpoint returns the state that a checkpoint holds.
func (u *update) checkpoint() *state {
	n := *u.state
	n.last = u.hash
	return &n
}

// without returns the keys without one of them. The last one stays, or nobody
// could sign any more.
func (s *state) without(id []byte) ([]trustedKey, error) {
	i := s.find(id)
	switch {
	case i < 0:
		return nil, errKeyUnknown
	case len(s.keys) == 1:
		return nil, errors.New("removes the last key")
	}
	return slices.Delete(slices.Clone(s.keys), i, i+1), nil
}

// changed returns the keys with other votes or data of one of them.
func (s *state) changed(u *update) ([]trustedKey, error) {
	i := s.find(u.keyID)
	if i < 0 {
		return nil, errKeyUnknown
	}
	k := s.keys[i]
	if u.votes != nil {
		k.votes = *u.votes
	}
	if u.meta != nil {
		k.meta = u.meta
	}
	if err := k.check(); err != nil {
		return nil, err
	}
	keys := slices.Clone(s.keys)
	keys[i] = k
	return keys, nil
}
