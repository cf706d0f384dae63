package endpoints

import (
	"net/netip"
	"slices"
	"time"

	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/netcheck"
)

// findings are what a discovery has to go by.
type findings struct {
	report     *netcheck.Report // nil: none was made
	mapped     netip.AddrPort   // by the home router; not valid: none
	port       uint16           // that the user has configured; 0 = none
	static     []netip.AddrPort
	bound      binding
	interfaces []host.Interface
}

// collect returns the endpoints in the order of PATH-23 and remembers those
// that are not this host's own.
func (f findings) collect(past *cache, now time.Time) []Endpoint {
	var c collection
	c.add(f.mapped, PortMapped) // row 1
	if f.report != nil {
		c.addReport(f.report, f.port) // rows 2 and 3
	}
	past.put(slices.Clone(c.list), now)
	for _, m := range past.all { // row 5
		c.add(m.Addr, m.Kind)
	}
	for _, addr := range f.static { // row 6
		c.add(addr, Explicit)
	}
	c.addLocal(localAddresses(f.interfaces), f.bound) // row 7
	return c.list
}

// addReport adds what STUN servers have seen and, behind a NAT that gives each
// destination another port, the guess that the user's port is forwarded.
func (c *collection) addReport(r *netcheck.Report, port uint16) {
	v4, v6 := r.PublicEndpoints()
	for _, addr := range slices.Concat(v4, v6) {
		c.add(addr, STUN)
	}
	if r.MappingVariesByDestIP == netcheck.True && port != 0 && r.GlobalV4.IsValid() {
		c.add(netip.AddrPortFrom(r.GlobalV4.Addr(), port), STUN4LocalPort)
	}
}
