package dns

import (
	"context"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
)

// QueryOfPeer answers a message that a peer has sent over peerAPI, and that may
// be answered: it gets what this node's servers say, or the host's resolver. Names
// that the tailnet answers for itself are refused, as a peer has its own netmap
// for them and may not see all of ours; and so are those that the control server
// withholds from peers (SVC-88). Errors are as Query's.
func (r *Resolver) QueryOfPeer(ctx context.Context, message []byte) ([]byte, error) {
	q, d, response, err := r.decide(message, false)
	switch {
	case err != nil:
		return nil, err
	case q == nil: // it has no question
		return response, nil
	case d.Verdict != Forward, r.Table().withheld(q.name):
		return q.fail(dnsmessage.RCodeRefused), nil
	case !r.acquire():
		return nil, ErrBusy
	}
	defer r.release()
	return r.forwardOrHost(ctx, q, d.Upstreams), nil
}

// withheld reports whether a name is not for peers: it is one of the netmap's
// ExitNodeFilteredSet, or below one of them that begins with a dot (SVC-88,
// control.md section 13.1).
func (t *Table) withheld(name string) bool {
	if t.netmap.DNS == nil {
		return false
	}
	for _, bad := range t.netmap.DNS.ExitNodeFilteredSet {
		suffix, below := strings.CutPrefix(strings.ToLower(strings.TrimSuffix(bad, ".")), ".")
		if suffix != "" && (name == suffix && !below || below && name != suffix && under(name, suffix)) {
			return true
		}
	}
	return false
}
