package netstack

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// addresses are the stack's own addresses.
type addresses struct {
	mu   sync.Mutex
	role map[netip.Addr]stack.PrimaryEndpointBehavior // nil before the first set

	primary atomic.Pointer[primaries]
}

// primaries are the addresses that dials start from, not valid where the stack
// has none of the family, and all others.
type primaries struct {
	v4, v6 netip.Addr
	all    []netip.Addr
}

func (p *primaries) of(family netip.Addr) *netip.Addr {
	if family.Is4() {
		return &p.v4
	}
	return &p.v6
}

// primaryFor returns our address that dials of a's family start from.
func (as *addresses) primaryFor(a netip.Addr) netip.Addr {
	if p := as.primary.Load(); p != nil {
		return *p.of(a)
	}
	return netip.Addr{}
}

// has reports whether a is an own address.
func (as *addresses) has(a netip.Addr) bool {
	p := as.primary.Load()
	return p != nil && slices.Contains(p.all, a)
}

// set replaces the addresses. gVisor keeps an address that is removed alive for
// its connections, and they carry on when it is added again, so a change of role
// is a removal and an addition.
func (as *addresses) set(gv *stack.Stack, addrs []netip.Addr) error {
	as.mu.Lock()
	defer as.mu.Unlock()
	want, first, err := roles(addrs)
	if as.role != nil && maps.Equal(want, as.role) { // as of most netmaps; sockets keep their routes
		return err
	}
	errs := []error{err}
	for a, role := range as.role {
		if r, stays := want[a]; stays && r == role {
			continue
		}
		if err := gv.RemoveAddress(nicID, toGvisor(a)); err != nil {
			errs = append(errs, fmt.Errorf("netstack: remove address %v: %v", a, err))
		}
		delete(as.role, a)
	}
	if as.role == nil {
		as.role = make(map[netip.Addr]stack.PrimaryEndpointBehavior)
	}
	for a, role := range want {
		if _, has := as.role[a]; has {
			continue
		}
		if err := gv.AddProtocolAddress(nicID, protocolAddress(a), stack.AddressProperties{PEB: role}); err != nil {
			errs = append(errs, fmt.Errorf("netstack: add address %v: %v", a, err))
			continue
		}
		as.role[a] = role
	}
	first.all = slices.Collect(maps.Keys(as.role))
	as.primary.Store(&first)
	return errors.Join(errs...)
}

// roles says of each address whether dials start from it; the first of a family
// is the one.
func roles(addrs []netip.Addr) (role map[netip.Addr]stack.PrimaryEndpointBehavior, first primaries, err error) {
	role = make(map[netip.Addr]stack.PrimaryEndpointBehavior)
	var errs []error
	for _, a := range addrs {
		a = a.Unmap().WithZone("")
		if !a.IsValid() || a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() {
			errs = append(errs, fmt.Errorf("netstack: %v cannot be a node's address", a))
			continue
		}
		if _, twice := role[a]; twice {
			continue
		}
		role[a] = stack.NeverPrimaryEndpoint
		if p := first.of(a); !p.IsValid() {
			*p = a
			role[a] = stack.FirstPrimaryEndpoint
		}
	}
	return role, first, errors.Join(errs...)
}

func protocolAddress(a netip.Addr) tcpip.ProtocolAddress {
	return tcpip.ProtocolAddress{Protocol: protocolOf(a), AddressWithPrefix: toGvisor(a).WithPrefix()}
}
