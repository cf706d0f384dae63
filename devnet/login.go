package devnet

import (
	"context"
	"fmt"
	"html"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/seed94491740/tsnode/control"
	"github.com/seed94491740/tsnode/key"
)

const (
	loginLifetime = 15 * time.Minute // of a login URL, as Headscale's (control.md section 7.4)
	maxLogins     = 1000             // that wait for a person
	maxUserName   = 100              // bytes

	loginPath = "/login/"
)

// A login is a registration that waits for a person.
type login struct {
	node     key.NodePublic
	hostname string
	began    time.Time
	user     string        // who approved; empty when refused
	done     chan struct{} // closed when it was decided
}

// decide ends the wait; the first decision counts.
func (l *login) decide(user string) {
	if !l.decided() {
		l.user = user
		close(l.done)
	}
}

func (l *login) decided() bool {
	select {
	case <-l.done:
		return true
	default:
		return false
	}
}

// tokenOf returns the last part of a login URL.
func tokenOf(url string) string { return url[strings.LastIndexByte(url, '/')+1:] }

// askPerson answers with a login URL: the one that is out already for this key,
// if there is one.
func (t *tailnet) askPerson(r *registration, now time.Time) *control.RegisterResponse {
	for token, l := range t.logins {
		if l.node == r.NodeKey && !l.decided() {
			return &control.RegisterResponse{AuthURL: r.base + loginPath + token}
		}
	}
	if len(t.logins) >= maxLogins {
		return refused("too many logins wait for a person")
	}
	token := randomHex(12)
	t.logins[token] = &login{node: r.NodeKey, hostname: r.Hostinfo.Hostname, began: now, done: make(chan struct{})}
	return &control.RegisterResponse{AuthURL: r.base + loginPath + token}
}

// awaitLogin waits until the login at url is decided; one that is unknown is, at
// once.
func (n *Net) awaitLogin(ctx context.Context, url string) error {
	decided := make(<-chan struct{})
	err := n.do(func(t *tailnet, _ time.Time) {
		if l := t.logins[tokenOf(url)]; l != nil {
			decided = l.done
			return
		}
		decided = nil
	})
	if err != nil || decided == nil {
		return err
	}
	select {
	case <-decided:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Approve decides a login in place of a person who visits url: user owns the
// node then; empty means DefaultUser.
func (n *Net) Approve(url, user string) error {
	if user == "" {
		user = DefaultUser
	}
	if len(user) > maxUserName || strings.ContainsFunc(user, func(r rune) bool { return r <= ' ' }) {
		return fmt.Errorf("devnet: user %.*q: want a name without spaces, at most %d bytes", maxUserName, user, maxUserName)
	}
	return n.decide(url, user)
}

// Refuse decides a login the other way: the node is told so.
func (n *Net) Refuse(url string) error { return n.decide(url, "") }

func (n *Net) decide(url, user string) error {
	var found bool
	err := n.do(func(t *tailnet, _ time.Time) {
		if l := t.logins[tokenOf(url)]; l != nil {
			found = true
			l.decide(user)
		}
	})
	if err == nil && !found {
		return fmt.Errorf("devnet: %w: %s", ErrNoLogin, url)
	}
	return err
}

// The login page: %s are the name of the node and what the page says.
const loginPage = `<!doctype html>
<html lang="en"><meta charset="utf-8"><title>devnet login</title>
<body style="font-family: sans-serif; max-width: 32em; margin: 4em auto">
<h1>devnet</h1>
<p>%s</p>%s
`

const loginForm = `
<form method="post"><label>as user <input name="user" value="` + DefaultUser + `"></label>
<button>Approve</button> <button name="refuse" value="1">Refuse</button></form>`

// serveLogin shows a login to a person and takes the decision.
func (n *Net) serveLogin(w http.ResponseWriter, r *http.Request) {
	token := r.PathValue("token")
	var hostname string
	var known bool
	err := n.do(func(t *tailnet, _ time.Time) {
		if l := t.logins[token]; l != nil {
			hostname, known = cleanName(l.hostname), true
		}
	})
	if err != nil || !known {
		http.Error(w, "this login is unknown or over: start the node again", http.StatusNotFound)
		return
	}
	name := html.EscapeString(hostname)
	text, form := fmt.Sprintf("The node <b>%s</b> asks to join.", name), loginForm
	if r.Method == http.MethodPost {
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		form, text = "", fmt.Sprintf("<b>%s</b> has joined. You may close this page.", name)
		if r.FormValue("refuse") != "" {
			text, err = fmt.Sprintf("<b>%s</b> was refused.", name), n.Refuse(token)
		} else {
			err = n.Approve(token, r.FormValue("user"))
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	io.WriteString(w, fmt.Sprintf(loginPage, text, form)) // to a browser: its loss is its own
}
