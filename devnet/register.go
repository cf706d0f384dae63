package devnet

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/seed94491740/tsnode/control"
	"github.com/seed94491740/tsnode/devnet/internal/policy"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
)

// An authKey is one that was given out; it is stored.
type authKey struct {
	KeyOptions
	Expires time.Time // zero: never
	Used    bool
}

// A registration is one request to register, and what is known of who sent it.
type registration struct {
	*control.RegisterRequest
	machine key.MachinePublic
	base    string // URL of this server as the node knows it
}

// check refuses requests that no client sends.
func (r *registration) check() error {
	switch {
	case r.NodeKey.IsZero():
		return errors.New("no NodeKey")
	case r.Hostinfo == nil:
		return errors.New("no Hostinfo")
	}
	return nil
}

// needsOther reports whether the node accepts no tailnet but another one.
func (r *registration) needsOther(domain string) bool {
	wanted, required := strings.CutPrefix(r.Tailnet, "required:")
	return required && wanted != domain
}

// register answers a registration (control.md section 7). One that follows up a
// login is passed in when that is decided.
func (t *tailnet) register(r *registration, now time.Time) *control.RegisterResponse {
	m := t.byKey(r.NodeKey)
	authKey := ""
	if r.Auth != nil {
		authKey = r.Auth.AuthKey
	}
	switch {
	case m != nil && m.Machine != r.machine:
		return refused("node exists with a different machine key")
	case m != nil && !r.Expiry.IsZero():
		return t.expire(m, r.Expiry, now)
	case !r.Expiry.IsZero() && !r.Expiry.After(now): // a logout of a node that has gone already
		return &control.RegisterResponse{NodeKeyExpired: true}
	case m != nil && !m.expired(now):
		t.setHostinfo(m, r.Hostinfo)
		return t.accepted(m)
	case r.needsOther(t.cfg.Domain):
		return refused(fmt.Sprintf("tailnet %q is not known here: this is %s", r.Tailnet, t.cfg.Domain))
	case m != nil && !t.cfg.Headscale:
		return &control.RegisterResponse{NodeKeyExpired: true, MachineAuthorized: m.Approved}
	case authKey != "":
		return t.registerWithKey(r, authKey, now)
	}
	return t.registerWithLogin(r, m, now)
}

// accepted is the answer to a node that is in.
func (t *tailnet) accepted(m *member) *control.RegisterResponse {
	p := t.profile(m.owner())
	return &control.RegisterResponse{
		MachineAuthorized: m.Approved,
		User:              control.User{ID: p.ID, DisplayName: p.DisplayName, Created: m.Created},
		Login:             control.Login{ID: int64(p.ID), Provider: "devnet", LoginName: p.LoginName, DisplayName: p.DisplayName},
	}
}

// refused is an answer with an error, which arrives with status 200.
func refused(text string) *control.RegisterResponse { return &control.RegisterResponse{Error: text} }

// expire is a logout, or a shortening of the key's life (CTL-26).
func (t *tailnet) expire(m *member, at, now time.Time) *control.RegisterResponse {
	switch {
	case at.After(now) && t.cfg.Headscale:
		return refused("extending key is not allowed")
	case at.After(now):
		if m.KeyExpiry.IsZero() || at.Before(m.KeyExpiry) {
			m.setExpiry(at, now)
			t.touch(m)
		}
		return t.accepted(m)
	case m.Ephemeral:
		t.remove(m)
	default:
		m.setExpiry(now, now)
		t.touch(m)
	}
	return &control.RegisterResponse{NodeKeyExpired: true}
}

// registerWithKey lets a node in by its auth key.
func (t *tailnet) registerWithKey(r *registration, text string, now time.Time) *control.RegisterResponse {
	k := t.keys[text]
	why := keyRefusals
	if t.cfg.Headscale {
		why = headscaleRefusals
	}
	switch {
	case k == nil:
		return refused(why.unknown)
	case !k.Expires.IsZero() && !now.Before(k.Expires):
		return refused(why.expired)
	case k.Used && !k.Reusable:
		return refused(why.used)
	case t.cfg.Headscale && len(r.Hostinfo.RequestTags) > 0:
		return refused("requested tags are not permitted with an auth key")
	}
	resp := t.join(r, &k.KeyOptions, now)
	k.Used = k.Used || resp.Error == ""
	return resp
}

// What a server says when it refuses an auth key. The texts of Headscale were
// read off its protocol; those of the hosted service are its clients' known
// ones.
type refusals struct{ unknown, expired, used string }

var (
	keyRefusals = refusals{
		unknown: "invalid key: API key does not exist",
		expired: "invalid key: API key has expired",
		used:    "invalid key: API key has already been used",
	}
	headscaleRefusals = refusals{
		unknown: "invalid pre auth key",
		expired: "authkey expired",
		used:    "authkey already used",
	}
)

// registerWithLogin lets a node in that a person has approved, or asks for one.
// m is the member whose expired key is shown again, if any.
func (t *tailnet) registerWithLogin(r *registration, m *member, now time.Time) *control.RegisterResponse {
	l := t.logins[tokenOf(r.Followup)]
	switch {
	case l == nil, l.node != r.NodeKey, !l.decided():
		if m != nil {
			return &control.RegisterResponse{NodeKeyExpired: true, MachineAuthorized: m.Approved}
		}
		return t.askPerson(r, now)
	case l.user == "":
		delete(t.logins, tokenOf(r.Followup))
		return refused("login was refused")
	}
	delete(t.logins, tokenOf(r.Followup))
	return t.join(r, &KeyOptions{User: l.user}, now)
}

// join makes a member, or renews one.
func (t *tailnet) join(r *registration, o *KeyOptions, now time.Time) *control.RegisterResponse {
	owner := t.userID(o.User)
	tags, err := t.tagsFor(owner, o.Tags, r.Hostinfo.RequestTags)
	if err != nil {
		return refused(err.Error())
	}
	m := t.renewed(r, owner)
	if m == nil {
		if m, err = t.newMember(r, now); err != nil {
			return refused(err.Error())
		}
		m.Approved = o.Preapproved || !t.cfg.NeedApproval
	}
	m.User, m.Key, m.Tags = owner, r.NodeKey, tags
	m.Ephemeral = o.Ephemeral || r.Ephemeral && !t.cfg.Headscale
	m.setExpiry(time.Time{}, now)
	if t.cfg.KeyLifetime != 0 && len(tags) == 0 {
		m.setExpiry(now.Add(t.cfg.KeyLifetime).UTC(), now)
	}
	if !m.live.Online { // the time that an ephemeral node may be away runs from here
		l := *m.live
		l.LastSeen = now.UTC()
		t.setLive(m, l)
	}
	t.setHostinfo(m, r.Hostinfo)
	t.touch(m)
	t.regroup()
	t.cfg.Logger.Info("node has joined", "name", m.Name, "addresses", m.Addresses)
	return t.accepted(m)
}

// renewed returns the member that a registration renews: that of the old key, or
// one of the same machine and owner. A new machine key means a new node.
func (t *tailnet) renewed(r *registration, owner netmap.UserID) *member {
	for _, m := range t.sorted() {
		old := !t.cfg.Headscale && !r.OldNodeKey.IsZero() && m.Key == r.OldNodeKey
		if m.Machine == r.machine && (old || m.User == owner) {
			return m
		}
	}
	return nil
}

// newMember makes a member with a name, addresses and identity.
func (t *tailnet) newMember(r *registration, now time.Time) (*member, error) {
	addrs, err := t.newAddresses()
	if err != nil {
		return nil, err
	}
	hostname := r.Hostinfo.Hostname
	if hostname == "" && t.cfg.Headscale {
		hostname = "invalid-" + randomHex(3)
	}
	m := &member{live: new(live), record: record{
		ID: t.nextID, StableID: netmap.StableID("n" + randomHex(6) + "CNTRL"), Name: t.unusedName(cleanName(hostname), nil),
		Machine: r.machine, Addresses: addrs, Created: now.UTC(),
	}}
	if t.cfg.Headscale {
		m.StableID = netmap.StableID(strconv.FormatInt(int64(m.ID), 10))
	}
	t.nextID++
	t.members[m.ID] = m
	return m, nil
}

// tagsFor returns the tags of a key and those a node asks for, if it may.
func (t *tailnet) tagsFor(owner netmap.UserID, ofKey, asked []string) ([]string, error) {
	all := slices.Concat(ofKey, asked)
	for _, tag := range all {
		if err := policy.CheckTag(tag); err != nil {
			return nil, err
		}
	}
	for _, tag := range asked {
		if !t.policy.MayTag(t.loginOf(owner), ofKey, tag) {
			return nil, fmt.Errorf("requested tags [%s] are invalid or not permitted", tag)
		}
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}

// setHostinfo takes what a node tells about itself. The DNS name follows the
// host name unless an administrator has given one.
func (t *tailnet) setHostinfo(m *member, h *control.Hostinfo) {
	if h == nil || sameJSON(m.Hostinfo, h) {
		return
	}
	routes := m.Hostinfo == nil || !slices.Equal(m.Hostinfo.RoutableIPs, h.RoutableIPs)
	if m.Hostinfo != nil && !m.Renamed && h.Hostname != "" && cleanName(h.Hostname) != cleanName(m.Hostinfo.Hostname) {
		m.Name = t.unusedName(cleanName(h.Hostname), m)
	}
	m.Hostinfo = h
	t.touch(m)
	if routes {
		t.regroup()
	}
}
