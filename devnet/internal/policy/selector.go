package policy

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// A selector names nodes or networks in a policy.
type selector struct {
	kind selectorKind
	name string       // tag, group or user
	net  netip.Prefix // of kind network
}

type selectorKind uint8

const (
	everyone selectorKind = iota // "*"
	network                      // an address, a prefix, or a host's name
	tag                          // "tag:NAME"
	group                        // "group:NAME"
	user                         // "NAME@" or a full login name
	members                      // "autogroup:member": nodes of people
	tagged                       // "autogroup:tagged": nodes with tags
	self                         // "autogroup:self": other nodes of the same person
	internet                     // "autogroup:internet": all beyond exit nodes
)

// A role is where a selector stands.
type role bool

const (
	asSource      role = false
	asDestination role = true
)

func (p *Policy) selectors(texts []string, as role) (all []selector, err error) {
	for _, text := range texts {
		s, err := p.selector(text, as)
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}

// selector reads one selector and refuses what could never match, which is most
// often a mistake.
func (p *Policy) selector(text string, as role) (selector, error) {
	prefix, _, _ := strings.Cut(text, ":")
	switch {
	case text == "*":
		return selector{kind: everyone}, nil
	case prefix == "autogroup":
		return autogroup(text, as)
	case prefix == "tag":
		return selector{kind: tag, name: text}, CheckTag(text)
	case prefix == "group":
		if _, ok := p.groups[text]; !ok {
			return selector{}, fmt.Errorf("%q: this group is not defined", text)
		}
		return selector{kind: group, name: text}, nil
	case strings.Contains(text, "@"):
		return selector{kind: user, name: p.loginName(text)}, nil
	}
	if pfx, ok := p.hosts[text]; ok {
		return selector{kind: network, net: pfx}, nil
	}
	pfx, err := parsePrefix(text)
	if err != nil {
		return selector{}, fmt.Errorf("%q: want *, tag:NAME, group:NAME, USER@, autogroup:NAME, the name of a host, an address or a prefix", text)
	}
	return selector{kind: network, net: pfx}, nil
}

func autogroup(text string, as role) (selector, error) {
	kinds := map[string]selectorKind{
		"autogroup:member": members, "autogroup:tagged": tagged, "autogroup:self": self, "autogroup:internet": internet,
	}
	kind, ok := kinds[text]
	switch {
	case !ok:
		return selector{}, fmt.Errorf("%q: this autogroup is not known here", text)
	case as == asSource && (kind == self || kind == internet):
		return selector{}, fmt.Errorf("%q: can only be a destination", text)
	}
	return selector{kind: kind}, nil
}

// checkGroup checks a definition of a group: its name, and that its members are
// users.
func checkGroup(name string, users []string) error {
	if strings.TrimPrefix(name, "group:") == name {
		return errors.New("want group:NAME")
	}
	for _, u := range users {
		if !strings.Contains(u, "@") {
			return fmt.Errorf("member %q: want USER@ or a full login name", u)
		}
	}
	return nil
}

// tagLetters may be in the name of a tag, in either case.
const tagLetters = "abcdefghijklmnopqrstuvwxyz0123456789-"

// CheckTag checks the form of a tag: "tag:", a letter, then letters, digits and
// hyphens (control.md section 7.4).
func CheckTag(text string) error {
	name := strings.TrimPrefix(text, "tag:")
	low := strings.ToLower(name)
	if name == text || name == "" || strings.Trim(low, tagLetters) != "" || low[0] < 'a' {
		return fmt.Errorf("tag %q: want tag:NAME, NAME of letters, digits and hyphens", text)
	}
	return nil
}

// parsePrefix reads an address or a prefix.
func parsePrefix(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%q is no address or prefix", s)
	}
	return p.Masked(), nil
}

// loginName completes "NAME@".
func (p *Policy) loginName(text string) string {
	if strings.HasSuffix(text, "@") {
		return text + p.domain
	}
	return text
}

// names reports whether a selector means n itself. What lies behind it is looked
// at elsewhere.
func (p *Policy) names(s selector, n *Node) bool {
	owned := len(n.Tags) == 0 // a node with tags belongs to nobody (SVC-119)
	switch s.kind {
	case everyone:
		return true
	case network:
		return slices.ContainsFunc(n.Addresses, func(a netip.Prefix) bool { return s.net.Contains(a.Addr()) })
	case tag:
		return slices.Contains(n.Tags, s.name)
	case members:
		return owned
	case tagged:
		return !owned
	}
	return owned && p.namesUser(s, n.User)
}

// namesAny reports whether one of the selectors means n.
func (p *Policy) namesAny(all []selector, n *Node) bool {
	return slices.ContainsFunc(all, func(s selector) bool { return p.names(s, n) })
}

// namesUser reports whether a selector of people means a user.
func (p *Policy) namesUser(s selector, login string) bool {
	switch s.kind {
	case everyone, members:
		return true
	case user:
		return login == s.name
	case group:
		return slices.Contains(p.groups[s.name], login)
	}
	return false
}
