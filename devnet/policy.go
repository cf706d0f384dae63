package devnet

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/tailscale/hujson"

	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/packet"
)

// allowAll is the policy of an empty Config.Policy.
const allowAll = `{"acls": [{"action": "accept", "src": ["*"], "dst": ["*:*"]}]}`

// A policy is a parsed policy file. It is immutable.
type policy struct {
	groups map[string][]string // "group:NAME" to login names
	hosts  map[string]netip.Prefix
	rules  []rule
}

// A rule permits flows, or grants capabilities, from sources to destinations.
type rule struct {
	src  []string
	dst  []target
	caps map[string][]json.RawMessage
}

// A target is what a rule permits to reach.
type target struct {
	who    string
	protos []int // IP protocols; none: the usual ones
	ports  []netmap.PortRange
}

// A policyFile is the file as written (HuJSON). Sections that have no meaning
// here are read over, so that a policy of a real tailnet can be tried.
type policyFile struct {
	Groups map[string][]string `json:"groups"`
	Hosts  map[string]string   `json:"hosts"`
	ACLs   []struct {
		Action string   `json:"action"`
		Proto  string   `json:"proto"`
		Src    []string `json:"src"`
		Dst    []string `json:"dst"`
	} `json:"acls"`
	Grants []struct {
		Src []string                     `json:"src"`
		Dst []string                     `json:"dst"`
		IP  []string                     `json:"ip"`
		App map[string][]json.RawMessage `json:"app"`
	} `json:"grants"`
}

// parsePolicy reads a policy file; its errors name the entry.
func parsePolicy(text []byte) (*policy, error) {
	if len(bytes.TrimSpace(text)) == 0 {
		text = []byte(allowAll)
	}
	plain, err := hujson.Standardize(text)
	if err != nil {
		return nil, fmt.Errorf("devnet: policy: %w", err)
	}
	var f policyFile
	if err := json.Unmarshal(plain, &f); err != nil {
		return nil, fmt.Errorf("devnet: policy: %w", err)
	}
	p := &policy{groups: f.Groups, hosts: make(map[string]netip.Prefix)}
	for name, text := range f.Hosts {
		if p.hosts[name], err = parsePrefix(text); err != nil {
			return nil, fmt.Errorf("devnet: policy: host %q: %w", name, err)
		}
	}
	for i, a := range f.ACLs {
		if err := p.addACL(a.Action, a.Proto, a.Src, a.Dst); err != nil {
			return nil, fmt.Errorf("devnet: policy: acls[%d]: %w", i, err)
		}
	}
	for i, g := range f.Grants {
		if err := p.addGrant(g.Src, g.Dst, g.IP, g.App); err != nil {
			return nil, fmt.Errorf("devnet: policy: grants[%d]: %w", i, err)
		}
	}
	return p, nil
}

func (p *policy) addACL(action, proto string, src, dst []string) error {
	if action != "accept" {
		return fmt.Errorf("action %q: want accept", action)
	}
	protos, err := parseProto(proto)
	if err != nil {
		return err
	}
	r := rule{src: src}
	for _, d := range dst {
		i := strings.LastIndexByte(d, ':')
		if i < 0 {
			return fmt.Errorf("destination %q: want WHO:PORTS", d)
		}
		ports, err := parsePorts(d[i+1:])
		if err != nil {
			return fmt.Errorf("destination %q: %w", d, err)
		}
		r.dst = append(r.dst, target{who: strings.Trim(d[:i], "[]"), protos: protos, ports: ports})
	}
	return p.add(r)
}

func (p *policy) addGrant(src, dst, ip []string, app map[string][]json.RawMessage) error {
	r := rule{src: src, caps: app}
	for _, d := range dst {
		if len(ip) == 0 {
			r.dst = append(r.dst, target{who: d})
		}
		for _, spec := range ip {
			t, err := parseIPSpec(spec)
			if err != nil {
				return err
			}
			t.who = d
			r.dst = append(r.dst, t)
		}
	}
	return p.add(r)
}

// add checks the selectors of a rule and keeps it.
func (p *policy) add(r rule) error {
	for _, s := range r.src {
		if err := p.checkSelector(s); err != nil {
			return fmt.Errorf("source %q: %w", s, err)
		}
	}
	for _, d := range r.dst {
		if err := p.checkSelector(d.who); err != nil {
			return fmt.Errorf("destination %q: %w", d.who, err)
		}
	}
	p.rules = append(p.rules, r)
	return nil
}

// checkSelector refuses what could never match, which is most often a mistake.
func (p *policy) checkSelector(s string) error {
	switch {
	case s == "*", strings.HasPrefix(s, "tag:"), strings.Contains(s, "@"):
		return nil
	case strings.HasPrefix(s, "autogroup:"):
		switch s {
		case "autogroup:self", "autogroup:member", "autogroup:tagged", "autogroup:internet":
			return nil
		}
		return errors.New("this autogroup is not known here")
	case strings.HasPrefix(s, "group:"):
		if _, ok := p.groups[s]; !ok {
			return errors.New("this group is not defined")
		}
		return nil
	}
	if _, ok := p.hosts[s]; ok {
		return nil
	}
	if _, err := parsePrefix(s); err != nil {
		return errors.New("want *, tag:NAME, group:NAME, USER@, autogroup:NAME, a host's name, an address or a prefix")
	}
	return nil
}

func parsePrefix(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	return p.Masked(), err
}

var protoNames = map[string]packet.Proto{
	"icmp": packet.ICMPv4, "igmp": packet.IGMP, "tcp": packet.TCP, "udp": packet.UDP, "ipv6-icmp": packet.ICMPv6,
	"gre": packet.GRE, "sctp": packet.SCTP, "dccp": packet.DCCP,
}

// parseProto reads the name or number of an IP protocol; nil means the usual
// ones: TCP, UDP and ICMP.
func parseProto(s string) ([]int, error) {
	if s == "" || s == "*" {
		return nil, nil
	}
	if p, ok := protoNames[s]; ok {
		if p == packet.ICMPv4 {
			return []int{int(packet.ICMPv4), int(packet.ICMPv6)}, nil
		}
		return []int{int(p)}, nil
	}
	n, err := strconv.ParseUint(s, 10, 8)
	if err != nil || n == 0 || n == 255 {
		return nil, fmt.Errorf("protocol %q: want a name such as tcp, or a number from 1 to 254", s)
	}
	return []int{int(n)}, nil
}

var anyPort = netmap.PortRange{First: 0, Last: 65535}

// parsePorts reads "*", or ports and ranges with commas.
func parsePorts(s string) (ranges []netmap.PortRange, err error) {
	if s == "*" {
		return []netmap.PortRange{anyPort}, nil
	}
	for part := range strings.SplitSeq(s, ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		a, errA := strconv.ParseUint(first, 10, 16)
		b, errB := strconv.ParseUint(last, 10, 16)
		if errA != nil || errB != nil || a > b {
			return nil, fmt.Errorf("ports %q: want *, a port, or a range as 8000-8010", part)
		}
		ranges = append(ranges, netmap.PortRange{First: uint16(a), Last: uint16(b)})
	}
	return ranges, nil
}

// parseIPSpec reads a grant's "*", "tcp", "443" or "tcp:443,8000-8010".
func parseIPSpec(s string) (t target, err error) {
	proto, ports, both := strings.Cut(s, ":")
	switch {
	case s == "*":
		proto, ports = "", "*"
	case both:
	case proto != "" && proto[0] >= '0' && proto[0] <= '9':
		proto, ports = "", s
	default:
		ports = "*"
	}
	if t.protos, err = parseProto(proto); err != nil {
		return t, err
	}
	t.ports, err = parsePorts(ports)
	return t, err
}
