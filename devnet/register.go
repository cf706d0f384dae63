package devnet

import (
	"context"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/seed94491740/tsnode/control"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
)

const (
	loginLifetime = 15 * time.Minute // of a login URL, as Headscale's
	maxLogins     = 1000             // that wait for a person
)

// A pending is a registration that waits for a person.
type pending struct {
	node     key.NodePublic
	hostname string
	began    time.Time
	done     chan struct{} // closed when it was decided
	user     string        // who approved; empty: refused
}

// register answers a registration (control.md section 7). A followup waits
// within ctx until a person has decided.
func (n *Net) register(ctx context.Context, machine key.MachinePublic, req *control.RegisterRequest, url string) (*control.RegisterResponse, error) {
	if req.NodeKey.IsZero() {
		return nil, errors.New("node key is missing")
	}
	if req.Hostinfo == nil {
		return nil, errors.New("hostinfo is missing")
	}
	if req.Followup != "" {
		if err := n.await(ctx, req.Followup); err != nil {
			return nil, err
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	m := n.byKey(req.NodeKey)
	if m != nil && m.Machine != machine {
		return &control.RegisterResponse{Error: "node exists with a different machine key"}, nil
	}
	now := time.Now()
	if m != nil && !req.Expiry.IsZero() {
		return n.expire(m, req.Expiry, now), nil
	}
	if m != nil && !m.expired(now) {
		return n.accepted(m), nil
	}
	if req.Auth != nil && req.Auth.AuthKey != "" {
		return n.registerWithKey(machine, req, now), nil
	}
	if l := n.login(req.Followup, req.NodeKey); l != nil && l.user != "" {
		delete(n.logins, tokenOf(req.Followup))
		return n.join(machine, req, &authKey{KeyOptions: KeyOptions{User: l.user, Preapproved: !n.cfg.NeedApproval}}, now), nil
	}
	if m != nil {
		return &control.RegisterResponse{NodeKeyExpired: true, MachineAuthorized: m.Approved}, nil
	}
	return n.askPerson(req, url, now), nil
}

// byKey returns the member with a node key; n.mu is held.
func (n *Net) byKey(k key.NodePublic) *member {
	for _, m := range n.members {
		if m.Key == k {
			return m
		}
	}
	return nil
}

// accepted is the answer to a node that is in; n.mu is held.
func (n *Net) accepted(m *member) *control.RegisterResponse {
	login := n.users[m.User-1]
	return &control.RegisterResponse{
		MachineAuthorized: m.Approved,
		User:              control.User{ID: m.User, DisplayName: login, Created: m.Created},
		Login:             control.Login{ID: int64(m.User), Provider: "devnet", LoginName: n.loginName(login), DisplayName: login},
	}
}

func (n *Net) loginName(user string) string {
	if strings.Contains(user, "@") {
		return user
	}
	return user + "@" + n.cfg.Domain
}

// expire is a logout, or a shortening of the key's life; n.mu is held.
func (n *Net) expire(m *member, at, now time.Time) *control.RegisterResponse {
	switch {
	case at.After(now) && n.cfg.Headscale:
		return &control.RegisterResponse{Error: "extending key is not allowed"}
	case at.After(now):
		if m.KeyExpiry.IsZero() || at.Before(m.KeyExpiry) {
			m.KeyExpiry = at
			n.touch(m)
		}
		return n.accepted(m)
	case m.Ephemeral:
		n.remove(m)
	default:
		m.KeyExpiry = now
		n.touch(m)
	}
	return &control.RegisterResponse{NodeKeyExpired: true}
}

// registerWithKey lets a node in by its auth key; n.mu is held.
func (n *Net) registerWithKey(machine key.MachinePublic, req *control.RegisterRequest, now time.Time) *control.RegisterResponse {
	k := n.keys[req.Auth.AuthKey]
	switch {
	case k == nil:
		return refused("invalid key: API key does not exist")
	case !k.Expires.IsZero() && now.After(k.Expires):
		return refused("invalid key: API key has expired")
	case k.Used && !k.Reusable && n.renewed(machine, req.OldNodeKey) == nil:
		return refused("invalid key: API key has already been used")
	case n.cfg.Headscale && len(req.Hostinfo.RequestTags) > 0:
		return refused("requested tags are not permitted with an auth key")
	}
	k.Used = true
	return n.join(machine, req, k, now)
}

func refused(text string) *control.RegisterResponse { return &control.RegisterResponse{Error: text} }

// renewed returns the member that a new node key replaces: that of the old key,
// or Headscale's choice, that of the machine; n.mu is held.
func (n *Net) renewed(machine key.MachinePublic, old key.NodePublic) *member {
	for _, m := range n.members {
		if m.Machine == machine && (m.Key == old || n.cfg.Headscale) {
			return m
		}
	}
	return nil
}

// join makes or renews a member; n.mu is held.
func (n *Net) join(machine key.MachinePublic, req *control.RegisterRequest, k *authKey, now time.Time) *control.RegisterResponse {
	tags := slices.Concat(k.Tags, req.Hostinfo.RequestTags)
	slices.Sort(tags)
	tags = slices.Compact(tags)
	if i := slices.IndexFunc(tags, func(t string) bool { return !strings.HasPrefix(t, "tag:") }); i >= 0 {
		return refused(fmt.Sprintf("tag %q: want tag:NAME", tags[i]))
	}
	m := n.renewed(machine, req.OldNodeKey)
	if m == nil {
		addrs, err := n.newAddresses()
		if err != nil {
			return refused(err.Error())
		}
		m = &member{ID: n.nextID, StableID: netmap.StableID("n" + randomHex(6)), Addresses: addrs, Machine: machine, Created: now.UTC(), Approved: k.Preapproved || !n.cfg.NeedApproval}
		n.nextID++
		m.Name = n.unusedName(cleanName(req.Hostinfo.Hostname))
		n.members[m.ID] = m
	}
	m.User, m.Key, m.Tags, m.Hostinfo = n.userID(k.User), req.NodeKey, tags, req.Hostinfo
	m.Ephemeral = k.Ephemeral || req.Ephemeral && !n.cfg.Headscale
	m.KeyExpiry = time.Time{}
	if n.cfg.KeyLifetime != 0 && len(tags) == 0 {
		m.KeyExpiry = now.Add(n.cfg.KeyLifetime).UTC()
	}
	n.touch(m)
	n.log.Info("node has joined", "name", m.Name, "addresses", m.Addresses)
	return n.accepted(m)
}

// newAddresses gives out the next free addresses; n.mu is held.
func (n *Net) newAddresses() (addrs []prefix, err error) {
	for {
		if addrs, err = addressesFor(n.nextAddr); err != nil {
			return nil, err
		}
		n.nextAddr++
		if usable(addrs) {
			return addrs, nil
		}
	}
}

// unusedName returns name, with a number if it is taken; n.mu is held.
func (n *Net) unusedName(name string) string {
	free := func(name string) bool { _, err := n.byName(name); return err != nil }
	if free(name) {
		return name
	}
	for i := 1; ; i++ {
		if c := fmt.Sprintf("%s-%d", name, i); free(c) {
			return c
		}
	}
}

// askPerson answers with a login URL; n.mu is held.
func (n *Net) askPerson(req *control.RegisterRequest, url string, now time.Time) *control.RegisterResponse {
	for token, l := range n.logins {
		if now.Sub(l.began) > loginLifetime {
			delete(n.logins, token)
		}
	}
	if len(n.logins) >= maxLogins {
		return refused("too many logins wait for a person")
	}
	token := randomHex(12)
	n.logins[token] = &pending{node: req.NodeKey, hostname: req.Hostinfo.Hostname, began: now, done: make(chan struct{})}
	return &control.RegisterResponse{AuthURL: url + "/login/" + token}
}

func tokenOf(url string) string { return url[strings.LastIndexByte(url, '/')+1:] }

// login returns the login of a URL if it was for that key; n.mu is held.
func (n *Net) login(url string, k key.NodePublic) *pending {
	if l := n.logins[tokenOf(url)]; l != nil && l.node == k {
		return l
	}
	return nil
}

// await waits until the login at url is decided; an unknown one is, at once.
func (n *Net) await(ctx context.Context, url string) error {
	n.mu.Lock()
	l := n.logins[tokenOf(url)]
	n.mu.Unlock()
	if l == nil {
		return nil
	}
	select {
	case <-l.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Approve decides a login in place of a person who visits url: user owns the
// node; default "dev".
func (n *Net) Approve(url, user string) error {
	if user == "" {
		user = "dev"
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	l := n.logins[tokenOf(url)]
	if l == nil {
		return fmt.Errorf("%w: %s", ErrNoLogin, url)
	}
	if l.user == "" {
		l.user = user
		close(l.done)
	}
	return nil
}

var loginPage = template.Must(template.New("login").Parse(`<!doctype html>
<html lang="en"><meta charset="utf-8"><title>devnet login</title>
<body style="font-family: sans-serif; max-width: 32em; margin: 4em auto">
<h1>devnet</h1>
{{if .Done}}<p>{{.Name}} has joined. You may close this page.</p>
{{else}}<p>The node <b>{{.Name}}</b> asks to join.</p>
<form method="post"><label>as user <input name="user" value="dev"></label> <button>Approve</button></form>{{end}}
`))

// serveLogin shows a login to a person and takes the decision.
func (s *controlServer) serveLogin(w http.ResponseWriter, r *http.Request) {
	token := r.PathValue("token")
	s.net.mu.Lock()
	l := s.net.logins[token]
	s.net.mu.Unlock()
	if l == nil {
		http.Error(w, "this login is unknown or over: start the node again", http.StatusNotFound)
		return
	}
	page := struct {
		Name string
		Done bool
	}{cleanName(l.hostname), false}
	if r.Method == http.MethodPost {
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		if err := s.net.Approve(token, r.FormValue("user")); err != nil {
			http.Error(w, err.Error(), http.StatusNotFound)
			return
		}
		page.Done = true
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	loginPage.Execute(w, page)
}
