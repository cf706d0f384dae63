package disco

import "github.com/seed94491740/tsnode/key"

// maxSecrets bounds the shared keys that are kept. Agreeing on one anew costs
// about 0.1 ms.
const maxSecrets = 4096

// secrets keeps the keys shared with peers' disco keys (PATH-04). It lives as
// long as our own key.
type secrets struct {
	own  key.DiscoPrivate
	kept map[key.DiscoPublic]*key.DiscoShared
}

func newSecrets(own key.DiscoPrivate) *secrets {
	return &secrets{own: own, kept: make(map[key.DiscoPublic]*key.DiscoShared)}
}

// with returns the key shared with d, which is not zero.
func (s *secrets) with(d key.DiscoPublic) *key.DiscoShared {
	if shared := s.kept[d]; shared != nil {
		return shared
	}
	if len(s.kept) >= maxSecrets {
		for old := range s.kept { // any one
			delete(s.kept, old)
			break
		}
	}
	shared := s.own.Shared(d)
	s.kept[d] = &shared
	return &shared
}

// keep drops the keys that no peer uses any more.
func (s *secrets) keep(known func(key.DiscoPublic) bool) {
	for d := range s.kept {
		if !known(d) {
			delete(s.kept, d)
		}
	}
}
