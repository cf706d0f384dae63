package packetfilter

import (
	"encoding/json"
	"net/netip"

	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/packet"
)

// A dst is a set of destinations: addresses and ports.
type dst[T point[T]] struct {
	span[T]
	ports netmap.PortRange
}

func (d *dst[T]) hasAddr(a T) bool { return !a.less(d.first) && !d.last.less(a) }

// A match is one rule, seen by one address family.
type match[T point[T]] struct {
	protos  protoSet
	srcs    spans[T]
	capSrcs spans[T] // addresses of nodes that hold a capability named as source
	dsts    []dst[T]
}

func (m *match[T]) fromAny(src T) bool { return m.srcs.contains(src) || m.capSrcs.contains(src) }

// Matches are all rules of one address family.
type matches[T point[T]] struct {
	list   []match[T]
	anyCap spans[T] // capSrcs of all rules
}

// add takes m over, without destinations that are not local and so are refused
// before any rule is asked. A match without sources or destinations permits
// nothing and is left out (SVC-13).
func (ms *matches[T]) add(m match[T], local spans[T]) {
	if len(m.srcs) == 0 && len(m.capSrcs) == 0 || len(m.dsts) == 0 {
		return
	}
	ms.anyCap = append(ms.anyCap, m.capSrcs...)
	kept := m.dsts[:0:0]
	for _, d := range m.dsts {
		if local.overlaps(spans[T]{d.span}) {
			kept = append(kept, d)
		}
	}
	if m.dsts = kept; len(kept) > 0 {
		ms.list = append(ms.list, m)
	}
}

// full is the full match of SVC-19: protocol, source, and destination address
// and port.
func (ms *matches[T]) full(p packet.Proto, src, to T, port uint16) bool {
	for i := range ms.list {
		m := &ms.list[i]
		if !m.protos.has(p) {
			continue
		}
		for j := range m.dsts {
			d := &m.dsts[j]
			if port >= d.ports.First && port <= d.ports.Last && d.hasAddr(to) {
				if m.fromAny(src) {
					return true
				}
				break
			}
		}
	}
	return false
}

// echo is the ICMP row of the table: protocols and ports are not looked at, and
// a source known by a capability may reach any destination.
func (ms *matches[T]) echo(src, to T) bool {
	for i := range ms.list {
		m := &ms.list[i]
		if m.reaches(to) && m.srcs.contains(src) {
			return true
		}
	}
	return ms.anyCap.contains(src)
}

func (m *match[T]) reaches(to T) bool {
	for j := range m.dsts {
		if m.dsts[j].hasAddr(to) {
			return true
		}
	}
	return false
}

// other is the row of protocols without ports: the rule must name the protocol
// and open all ports, and capabilities do not count.
func (ms *matches[T]) other(p packet.Proto, src, to T) bool {
	for i := range ms.list {
		m := &ms.list[i]
		if m.protos.has(p) && m.opens(to) && m.srcs.contains(src) {
			return true
		}
	}
	return false
}

// opens reports whether every port of an address is a destination.
func (m *match[T]) opens(to T) bool {
	for j := range m.dsts {
		if d := &m.dsts[j]; d.ports == (netmap.PortRange{First: 0, Last: 65535}) && d.hasAddr(to) {
			return true
		}
	}
	return false
}

// Grants are the capabilities that one rule grants.
type grants struct {
	from source
	to   []netmap.CapGrant
}

func (g *grants) grantedTo(src netip.Addr) bool {
	return g.from.addrs.contains(src) || g.from.byCap.contains(src)
}

// capIngress is the one capability that a peer exempt from tailnet lock can
// have: to pass on connections from the Internet (SVC-16, SVC-108).
const capIngress = "https://tailscale.com/cap/ingress"

// Caps returns the capabilities that src has towards dst, by name: the union
// over all grants whose sources contain src and whose destinations contain dst,
// values in the order of the rules (SVC-118). It is nil when there are none. The
// values must not be changed.
func (r *Rules) Caps(src, dst netip.Addr) netmap.CapMap {
	var caps netmap.CapMap
	add := func(name string, values []json.RawMessage) {
		if caps == nil {
			caps = make(netmap.CapMap)
		}
		old := caps[name]
		caps[name] = append(old[:len(old):len(old)], values...)
	}
	exempt := r.exempt.contains(src)
	for i := range r.grants {
		if g := &r.grants[i]; g.grantedTo(src) {
			g.each(dst, func(name string, values []json.RawMessage) {
				if !exempt || name == capIngress {
					add(name, values)
				}
			})
		}
	}
	return caps
}

// each calls f for every capability granted towards dst (SVC-14).
func (g *grants) each(dst netip.Addr, f func(name string, values []json.RawMessage)) {
	for _, grant := range g.to {
		for _, p := range grant.Dsts {
			if !p.Contains(dst) {
				continue
			}
			for _, name := range grant.Caps {
				f(name, nil)
			}
			for name, values := range grant.CapMap {
				f(name, values)
			}
		}
	}
}
