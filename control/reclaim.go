package control

import (
	"context"
	"fmt"
	"net/http"

	"github.com/seed94491740/tsnode/internal/actor"
)

// reclaim finds out whether a server that does not know the key in force means
// it (CTL-44). It asks without an auth key, which would make another node.
type reclaim struct{}

func (g *reclaim) pursue(ctx context.Context, s *session, creds *Credentials) (outcome, error) {
	r := s.newRegistration(creds, joinKey{}, false)
	for {
		resp := new(RegisterResponse)
		err := s.call(ctx, http.MethodPost, PathRegister, r.request(s.hostinfo()), resp, registerHint(r)...)
		switch {
		case ctx.Err() != nil:
			return outcome{creds, g}, ctx.Err()
		case err == nil && resp.asksPerson():
			return s.deleted(ctx, creds)
		case err == nil && resp.NodeKeyExpired:
			return outcome{creds, &register{regen: true, cause: ErrKeyExpired}}, nil
		case err == nil && resp.Error != "":
			return outcome{creds, &register{}}, nil
		}
		next := r.next(resp, err)
		switch {
		case next.done:
			now := r.credentials(resp)
			return outcome{now, &idle{}}, s.adopt(ctx, now)
		case next.fatal:
			return outcome{creds, g}, s.fail(next.err)
		}
		if err := actor.Sleep(ctx, next.wait); err != nil {
			return outcome{creds, g}, err
		}
	}
}

// asksPerson reports whether the answer is a login URL and nothing else.
func (r *RegisterResponse) asksPerson() bool {
	return r.AuthURL != "" && r.Error == "" && !r.NodeKeyExpired && len(r.NodeKeySignature) == 0
}

// deleted forgets the login of a node that the server has removed. An ephemeral
// node, which is the same to nobody but itself, joins anew if it can do so
// without a person; for any other this is the end.
func (s *session) deleted(ctx context.Context, creds *Credentials) (outcome, error) {
	s.log.Warn("the control server has removed this node", "node", creds.Node.Public())
	s.login.Store(login{generation: s.login.Get().generation + 1}) // no more polls
	if err := s.adopt(ctx, new(Credentials)); err != nil {
		return outcome{creds, &reclaim{}}, err
	}
	if !s.cfg.Ephemeral || s.joinKey.Get().isZero() {
		return outcome{}, s.fail(fmt.Errorf("%w: start it again to join as a new one", ErrNodeDeleted))
	}
	return outcome{new(Credentials), &register{cause: ErrNodeDeleted}}, nil
}
