package packetfilter

import (
	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/packet"
)

var allPorts = netmap.PortRange{First: 0, Last: 65535}

// An opening is one destination of one rule.
type opening[T point[T]] struct {
	span[T]
	ports  netmap.PortRange
	protos *protoSet
	rule   int32 // index in Config.Rules
}

func (o *opening[T]) hasAddr(a T) bool { return !a.less(o.first) && !o.last.less(a) }

func (o *opening[T]) hasPort(p uint16) bool { return p >= o.ports.First && p <= o.ports.Last }

// A group is all rules with the same sources, seen by one address family.
type group[T point[T]] struct {
	srcs    spans[T]
	capSrcs spans[T] // addresses of nodes that hold a capability named as source
	opens   []opening[T]

	reach  index[T] // to openings: one for each destination, whatever its ports
	protos protoSet // of any
	byAddr bool     // lookup has the openings by address, not by port
	lookup index[T]
}

// finish makes what is looked up in.
func (g *group[T]) finish() {
	addrs, ports := make(map[span[T]]struct{}), make(map[uint16]struct{})
	var reach []numbered[T]
	for i := range g.opens {
		o := &g.opens[i]
		g.protos.addAll(o.protos)
		ports[o.ports.First] = struct{}{}
		if _, known := addrs[o.span]; !known {
			addrs[o.span] = struct{}{}
			reach = append(reach, numbered[T]{o.span, int32(i)})
		}
	}
	g.reach = newIndex(reach)
	g.byAddr = len(addrs) > len(ports)
	g.lookup = newIndex(g.lookupSpans())
}

func (g *group[T]) lookupSpans() []numbered[T] {
	list := make([]numbered[T], len(g.opens))
	for i := range g.opens {
		o := &g.opens[i]
		list[i] = numbered[T]{o.span, int32(i)}
		if !g.byAddr {
			list[i].span = span[T]{o.first.port(o.ports.First), o.first.port(o.ports.Last)}
		}
	}
	return list
}

// candidates returns a cursor over openings: all that contain both an address
// and a port, and others.
func (g *group[T]) candidates(to T, port uint16) cursor[T] {
	if g.byAddr {
		return g.lookup.containing(to)
	}
	return g.lookup.containing(to.port(port))
}

// permits returns the rule that opens a port of an address; -1 for none.
func (g *group[T]) permits(p packet.Proto, to T, port uint16) int32 {
	if !g.protos.has(p) {
		return -1
	}
	c := g.candidates(to, port)
	for i, ok := c.next(); ok; i, ok = c.next() {
		if o := &g.opens[i]; o.hasAddr(to) && o.hasPort(port) && o.protos.has(p) {
			return o.rule
		}
	}
	return -1
}

// permitsAll returns the rule that opens every port of an address.
func (g *group[T]) permitsAll(p packet.Proto, to T) int32 {
	if !g.protos.has(p) {
		return -1
	}
	c := g.candidates(to, 0)
	for i, ok := c.next(); ok; i, ok = c.next() {
		if o := &g.opens[i]; o.ports == allPorts && o.hasAddr(to) && o.protos.has(p) {
			return o.rule
		}
	}
	return -1
}

// permitsAny returns the rule that opens any port of an address.
func (g *group[T]) permitsAny(to T) int32 {
	c := g.reach.containing(to)
	if i, ok := c.next(); ok {
		return g.opens[i].rule
	}
	return -1
}

// Matches are all rules of one address family.
type matches[T point[T]] struct {
	groups    []group[T]
	bySource  index[T] // to groups, by srcs
	byCapable index[T] // to groups, by capSrcs
	anyCap    spans[T] // capSrcs of all rules
}

// A side is one address family's part of a rule.
type side[T point[T]] struct {
	srcs, capSrcs spans[T]
	opens         []opening[T]
}

// add adds a rule to the group at *at, or to a new one, without destinations
// that are not local and so are refused before any rule is asked. One without
// sources or destinations permits nothing and is left out (SVC-13).
func (ms *matches[T]) add(s *side[T], local spans[T], at *int) {
	if len(s.srcs) == 0 && len(s.capSrcs) == 0 || len(s.opens) == 0 {
		return
	}
	ms.anyCap = append(ms.anyCap, s.capSrcs...)
	for _, o := range s.opens {
		if !local.overlaps(spans[T]{o.span}) {
			continue
		}
		if *at < 0 {
			*at = len(ms.groups)
			ms.groups = append(ms.groups, group[T]{srcs: s.srcs, capSrcs: s.capSrcs})
		}
		ms.groups[*at].opens = append(ms.groups[*at].opens, o)
	}
}

// finish makes what is looked up in, after the last add.
func (ms *matches[T]) finish() {
	ms.anyCap = ms.anyCap.normalised()
	var bySource, byCapable []numbered[T]
	for i := range ms.groups {
		g := &ms.groups[i]
		g.finish()
		bySource = appendNumbered(bySource, g.srcs, i)
		byCapable = appendNumbered(byCapable, g.capSrcs, i)
	}
	ms.bySource, ms.byCapable = newIndex(bySource), newIndex(byCapable)
}

func appendNumbered[T point[T]](list []numbered[T], s spans[T], number int) []numbered[T] {
	for _, x := range s {
		list = append(list, numbered[T]{x, int32(number)})
	}
	return list
}

// full is the full match of SVC-19: protocol, source, and destination address
// and port.
func (ms *matches[T]) full(p packet.Proto, src, to T, port uint16) Verdict {
	for _, x := range [...]*index[T]{&ms.bySource, &ms.byCapable} {
		c := x.containing(src)
		for i, ok := c.next(); ok; i, ok = c.next() {
			if rule := ms.groups[i].permits(p, to, port); rule >= 0 {
				return byRule(rule)
			}
		}
	}
	return dropped(NoRule)
}

// echo is the ICMP row of the table: protocols and ports are not looked at, and
// a source known by a capability may reach any destination.
func (ms *matches[T]) echo(src, to T) Verdict {
	c := ms.bySource.containing(src)
	for i, ok := c.next(); ok; i, ok = c.next() {
		if rule := ms.groups[i].permitsAny(to); rule >= 0 {
			return byRule(rule)
		}
	}
	if ms.anyCap.contains(src) {
		return accepted(Capability)
	}
	return dropped(NoRule)
}

// other is the row of protocols without ports: the rule must name the protocol
// and open all ports, and capabilities do not count.
func (ms *matches[T]) other(p packet.Proto, src, to T) Verdict {
	c := ms.bySource.containing(src)
	for i, ok := c.next(); ok; i, ok = c.next() {
		if rule := ms.groups[i].permitsAll(p, to); rule >= 0 {
			return byRule(rule)
		}
	}
	return dropped(NoRule)
}
