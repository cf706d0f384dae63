package control

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/tka"
)

// A registration is one attempt to get a node key accepted, over as many
// requests as it takes (control.md sections 7.2 to 7.5). It does no I/O.
type registration struct {
	creds   *Credentials // in force until this one succeeds (CTL-23)
	joinKey              // zero: a person logs in

	lock       key.LockPrivate // signs the new key where the server wants the signature of the old one renewed
	signature  []byte          // tailnet lock's, of the key that is registered; nil: none
	ephemeral  bool
	unattended bool // it ends when the key does not help: no person is asked
	checkURL   func(string) error

	candidate key.NodePrivate // new key; zero: creds.Node is registered again
	followup  string          // AuthURL that a person is to visit
	renewed   bool            // the server has said once that the key has expired
	problem   error           // why a person is asked although a key was there
	backoff   actor.Backoff
}

func newRegistration(creds *Credentials, k joinKey, regen bool) *registration {
	r := &registration{creds: creds, joinKey: k}
	if regen || creds.Node.IsZero() {
		r.candidate = key.NewNode()
	}
	return r
}

// nodeKey returns the key that is being registered.
func (r *registration) nodeKey() key.NodePrivate {
	if r.candidate.IsZero() {
		return r.creds.Node
	}
	return r.candidate
}

// request returns the next request. A follow-up repeats the keys of the request
// that brought the URL (CTL-21).
func (r *registration) request(h *Hostinfo) *RegisterRequest {
	req := &RegisterRequest{
		Version:   CapabilityVersion,
		NodeKey:   r.nodeKey().Public(),
		NLKey:     r.lock.Public(),
		Hostinfo:  h,
		Ephemeral: r.ephemeral,
		Followup:  r.followup,

		NodeKeySignature: r.signature,
	}
	if !r.candidate.IsZero() {
		req.OldNodeKey = r.creds.Node.Public()
	}
	if r.credential != nil && r.signature == nil {
		req.NodeKeySignature = r.credential.Sign(req.NodeKey)
	}
	if r.authKey != "" && r.followup == "" {
		req.Auth = &RegisterAuth{AuthKey: r.authKey}
	}
	return req
}

// A step is what a registration does next: it is done, or it waits and asks
// again, or it gives up for good.
type step struct {
	done  bool
	wait  time.Duration
	err   error // what is wrong, for Status
	fatal bool  // err is final
	over  bool  // err ends this registration; what was in force stays so
	url   string
}

func (r *registration) next(resp *RegisterResponse, err error) step {
	if err != nil {
		return r.onError(err)
	}
	return r.onResponse(resp)
}

// wantsKey reports whether the next request takes an auth key that has yet to be
// made. A known node is welcome without.
func (r *registration) wantsKey() bool {
	return r.secret != nil && r.authKey == "" && r.followup == "" && !r.candidate.IsZero()
}

// onMintError takes a client secret that brought no auth key.
func (r *registration) onMintError(err error) step {
	if !errors.Is(err, ErrBadAuthKey) && !errors.Is(err, ErrRefused) {
		return step{wait: max(retryDelay(err), r.backoff.Next()), err: err}
	}
	return r.withoutKey(err)
}

// withoutKey gives up a key that the server has refused for good. A node that is
// known can still be renewed by a person.
func (r *registration) withoutKey(err error) step {
	switch {
	case r.unattended:
		return step{err: err, over: true}
	case r.creds.Node.IsZero():
		return step{err: err, fatal: true}
	}
	r.joinKey, r.problem = joinKey{}, err
	return step{err: err}
}

// onError takes a request that brought no answer.
func (r *registration) onError(err error) step {
	if errors.Is(err, ErrUnsupportedVersion) {
		return step{err: err, fatal: true}
	}
	return step{wait: max(retryDelay(err), r.backoff.Next()), err: err, url: r.followup}
}

// onResponse takes an answer, in the order of control.md section 7.2.
func (r *registration) onResponse(resp *RegisterResponse) step {
	switch {
	case resp.Error != "":
		return r.onRefusal(resp.Error)
	case len(resp.NodeKeySignature) > 0:
		return r.onSignature(resp.NodeKeySignature)
	case resp.NodeKeyExpired:
		return r.onExpired()
	case resp.AuthURL != "":
		return r.onAuthURL(resp.AuthURL)
	}
	return step{done: true}
}

// onSignature signs the new key by what the server has of the old one (SVC-148).
func (r *registration) onSignature(old []byte) step {
	if r.signature != nil {
		return r.again(fmt.Errorf("%w: tailnet lock: the server does not take the signature of the new node key: sign it on another node", ErrRefused))
	}
	var err error
	if r.signature, err = tka.Rotate(r.lock, r.nodeKey().Public(), old); err != nil {
		return r.again(fmt.Errorf("%w: the server wants the new node key signed: %w", ErrRefused, err))
	}
	return step{}
}

// onExpired tries a fresh key once (CTL-24).
func (r *registration) onExpired() step {
	if r.renewed {
		return r.again(ErrKeyExpired)
	}
	r.renewed, r.problem = true, ErrKeyExpired
	r.candidate, r.followup, r.signature = key.NewNode(), "", nil
	return step{err: ErrKeyExpired}
}

// onAuthURL follows a URL up: a new one at once, the same one after a pause.
func (r *registration) onAuthURL(u string) step {
	if r.unattended {
		return step{err: fmt.Errorf("%w: the server wants a person to log in although it was given an auth key", ErrRefused), over: true}
	}
	if err := r.checkURL(u); err != nil {
		return r.again(fmt.Errorf("login URL of the control server: %w", err))
	}
	if u == r.followup {
		return step{wait: r.backoff.Next(), url: u, err: r.problem}
	}
	r.followup = u
	r.backoff.Reset()
	return step{url: u, err: r.problem}
}

// onRefusal takes an Error. Without a login to fall back to, a refused auth key
// is final: no retry mends it (control.md section 7.5). With one, a person can
// still renew it.
func (r *registration) onRefusal(text string) step {
	known := !r.creds.Node.IsZero()
	sent := r.authKey != "" && r.followup == ""
	said := shorten([]byte(r.hide(text)))
	err := fmt.Errorf("%w: %q", ErrRefused, said)
	if sent && meansBadAuthKey(text) {
		err = fmt.Errorf("%w: %q", ErrBadAuthKey, said)
	}
	switch {
	case sent && (!known || r.unattended || errors.Is(err, ErrBadAuthKey)):
		return r.withoutKey(err)
	case known && r.candidate.IsZero() && strings.Contains(strings.ToLower(text), "machine key"):
		r.candidate, r.signature, r.problem = key.NewNode(), nil, err // the old key is another machine's (section 8.9)
		return step{err: err}
	}
	r.followup = "" // refused by a person, or out of date: begin anew
	return r.again(err)
}

func (r *registration) again(err error) step {
	return step{wait: r.backoff.Next(), err: err}
}

// meansBadAuthKey tells a refused auth key from other refusals by its text:
// servers send no code. The phrases are those of Headscale and of the hosted
// server.
func meansBadAuthKey(text string) bool {
	text = strings.ToLower(text)
	return slices.ContainsFunc([]string{
		"auth key", "authkey", "auth-key", "pre-auth", "preauth", "pre auth", "invalid key", "api key",
	}, func(phrase string) bool { return strings.Contains(text, phrase) })
}

// credentials returns what the accepted registration has given.
func (r *registration) credentials(resp *RegisterResponse) *Credentials {
	c := *r.creds
	if !r.candidate.IsZero() {
		c.OldNode, c.Node = c.Node, r.candidate
	}
	c.User = netmap.UserProfile{
		ID:            resp.User.ID,
		LoginName:     resp.Login.LoginName,
		DisplayName:   cmp.Or(resp.User.DisplayName, resp.Login.DisplayName),
		ProfilePicURL: cmp.Or(resp.User.ProfilePicURL, resp.Login.ProfilePicURL),
	}
	return &c
}
