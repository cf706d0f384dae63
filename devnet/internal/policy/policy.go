// Package policy reads the policy file of a tailnet and works out what it means
// for each node: the packet filter, the peers it sees, its attributes.
//
// It is a pure function of the file and of what the nodes are; who they are and
// when to work it out anew is its caller's to know. It knows no server: the form
// of the file is that of the hosted service and of Headscale, as far as a
// devnet needs it.
//
// Source: doc/protocol/control.md section 13.3, doc/protocol/node-services.md
// section 3.1.
package policy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/tailscale/hujson"
)

// allowAll is what an empty file stands for.
const allowAll = `{"acls": [{"action": "accept", "src": ["*"], "dst": ["*:*"]}]}`

// A Policy is a parsed policy file. It is immutable.
type Policy struct {
	domain string // of users without one: "NAME@" means NAME@domain

	groups    map[string][]string // "group:NAME" to login names
	hosts     map[string]netip.Prefix
	tagOwners map[string][]selector // nil: everybody may ask for every tag
	rules     []rule
	attrs     []nodeAttr
	routes    map[netip.Prefix][]selector // whose offers of the route need no approval
	exitNodes []selector                  // whose offers of a default route need none
}

// A rule permits flows, or grants capabilities, from sources to targets.
type rule struct {
	src  []selector
	dst  []target
	caps map[string][]json.RawMessage
}

// A target is what a rule permits to reach.
type target struct {
	who   selector
	flows []flow // none: capabilities only
}

// A nodeAttr gives attributes to nodes (control.md section 9.4).
type nodeAttr struct {
	target []selector
	attrs  map[string][]json.RawMessage
}

// A policyFile is the file as written. Sections that mean nothing here are read
// over, so that the policy of a real tailnet can be tried; a condition that
// would be lost is an error.
type policyFile struct {
	Groups    map[string][]string `json:"groups"`
	Hosts     map[string]string   `json:"hosts"`
	TagOwners map[string][]string `json:"tagOwners"`
	ACLs      []aclEntry          `json:"acls"`
	Grants    []grantEntry        `json:"grants"`
	NodeAttrs []struct {
		Target []string                     `json:"target"`
		Attr   []string                     `json:"attr"`
		App    map[string][]json.RawMessage `json:"app"`
	} `json:"nodeAttrs"`
	AutoApprovers struct {
		Routes   map[string][]string `json:"routes"`
		ExitNode []string            `json:"exitNode"`
	} `json:"autoApprovers"`
}

type aclEntry struct {
	Action     string   `json:"action"`
	Proto      string   `json:"proto"`
	Src        []string `json:"src"`
	Dst        []string `json:"dst"`
	SrcPosture []string `json:"srcPosture"`
}

type grantEntry struct {
	Src        []string                     `json:"src"`
	Dst        []string                     `json:"dst"`
	IP         []string                     `json:"ip"`
	App        map[string][]json.RawMessage `json:"app"`
	Via        []string                     `json:"via"`
	SrcPosture []string                     `json:"srcPosture"`
}

// Parse reads a policy file, HuJSON; its errors name the entry. domain is that
// of the users whom the file names as "NAME@".
func Parse(text []byte, domain string) (*Policy, error) {
	if len(bytes.TrimSpace(text)) == 0 {
		text = []byte(allowAll)
	}
	plain, err := hujson.Standardize(bytes.Clone(text))
	if err != nil {
		return nil, fmt.Errorf("policy: %w", err)
	}
	var f policyFile
	if err := json.Unmarshal(plain, &f); err != nil {
		return nil, fmt.Errorf("policy: %w", err)
	}
	p := &Policy{domain: domain, groups: make(map[string][]string), hosts: make(map[string]netip.Prefix)}
	if err := p.add(&f); err != nil {
		return nil, fmt.Errorf("policy: %w", err)
	}
	return p, nil
}

// add takes the sections in the order in which they need each other.
func (p *Policy) add(f *policyFile) (err error) {
	for name, users := range f.Groups {
		if err := checkGroup(name, users); err != nil {
			return fmt.Errorf("groups[%q]: %w", name, err)
		}
		for _, u := range users {
			p.groups[name] = append(p.groups[name], p.loginName(u))
		}
	}
	for name, text := range f.Hosts {
		if p.hosts[name], err = parsePrefix(text); err != nil {
			return fmt.Errorf("hosts[%q]: %w", name, err)
		}
	}
	if f.TagOwners != nil {
		p.tagOwners = make(map[string][]selector)
	}
	for tag, owners := range f.TagOwners {
		if err := CheckTag(tag); err != nil {
			return fmt.Errorf("tagOwners: %w", err)
		}
		if p.tagOwners[tag], err = p.selectors(owners, asSource); err != nil {
			return fmt.Errorf("tagOwners[%q]: %w", tag, err)
		}
	}
	for i := range f.ACLs {
		if err := p.addACL(&f.ACLs[i]); err != nil {
			return fmt.Errorf("acls[%d]: %w", i, err)
		}
	}
	for i := range f.Grants {
		if err := p.addGrant(&f.Grants[i]); err != nil {
			return fmt.Errorf("grants[%d]: %w", i, err)
		}
	}
	return p.addRest(f)
}

func (p *Policy) addRest(f *policyFile) (err error) {
	for i, a := range f.NodeAttrs {
		n := nodeAttr{attrs: make(map[string][]json.RawMessage)}
		if n.target, err = p.selectors(a.Target, asSource); err != nil {
			return fmt.Errorf("nodeAttrs[%d]: target %w", i, err)
		}
		for _, name := range a.Attr {
			n.attrs[name] = []json.RawMessage{}
		}
		for name, values := range a.App {
			n.attrs[name] = values
		}
		p.attrs = append(p.attrs, n)
	}
	p.routes = make(map[netip.Prefix][]selector)
	for text, who := range f.AutoApprovers.Routes {
		pfx, err := parsePrefix(text)
		if err != nil {
			return fmt.Errorf("autoApprovers.routes: %w", err)
		}
		if p.routes[pfx], err = p.selectors(who, asSource); err != nil {
			return fmt.Errorf("autoApprovers.routes[%q]: %w", text, err)
		}
	}
	if p.exitNodes, err = p.selectors(f.AutoApprovers.ExitNode, asSource); err != nil {
		return fmt.Errorf("autoApprovers.exitNode: %w", err)
	}
	return nil
}

// addACL reads an entry of "acls": destinations are WHO:PORTS.
func (p *Policy) addACL(a *aclEntry) (err error) {
	switch {
	case a.Action != "accept":
		return fmt.Errorf("action %q: want accept", a.Action)
	case len(a.SrcPosture) > 0:
		return errPosture
	}
	protos, err := parseProto(a.Proto)
	if err != nil {
		return err
	}
	var r rule
	if r.src, err = p.selectors(a.Src, asSource); err != nil {
		return fmt.Errorf("src %w", err)
	}
	for _, d := range a.Dst {
		i := strings.LastIndexByte(d, ':')
		if i < 0 {
			return fmt.Errorf("dst %q: want WHO:PORTS", d)
		}
		who, err := p.selector(strings.Trim(d[:i], "[]"), asDestination)
		if err != nil {
			return fmt.Errorf("dst %w", err)
		}
		ports, err := parsePorts(d[i+1:])
		if err != nil {
			return fmt.Errorf("dst %q: %w", d, err)
		}
		r.dst = append(r.dst, target{who, []flow{{protos, ports}}})
	}
	p.rules = append(p.rules, r)
	return nil
}

// addGrant reads an entry of "grants": destinations, and apart from them what
// is granted there.
func (p *Policy) addGrant(g *grantEntry) (err error) {
	switch {
	case len(g.SrcPosture) > 0:
		return errPosture
	case len(g.Via) > 0:
		return errors.New("via is not supported here")
	case len(g.IP) == 0 && len(g.App) == 0:
		return errors.New("nothing is granted: want ip or app")
	}
	r := rule{caps: g.App}
	if r.src, err = p.selectors(g.Src, asSource); err != nil {
		return fmt.Errorf("src %w", err)
	}
	var flows []flow
	for _, spec := range g.IP {
		f, err := parseFlow(spec)
		if err != nil {
			return fmt.Errorf("ip %w", err)
		}
		flows = append(flows, f)
	}
	dst, err := p.selectors(g.Dst, asDestination)
	if err != nil {
		return fmt.Errorf("dst %w", err)
	}
	for _, who := range dst {
		r.dst = append(r.dst, target{who, flows})
	}
	p.rules = append(p.rules, r)
	return nil
}

var errPosture = errors.New("srcPosture is not supported here: nothing checks the posture of devices")
