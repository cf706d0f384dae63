package endpoints

import (
	"net/netip"
	"slices"
	"time"
)

// A Kind says how an endpoint was found; the numbers are those of the control
// protocol (PATH-23).
type Kind uint8

// Kinds of endpoints.
const (
	Local          Kind = 1 // address of an interface and the bound port
	STUN           Kind = 2 // as STUN servers saw it
	PortMapped     Kind = 3 // that the gateway maps to the bound port
	STUN4LocalPort Kind = 4 // a guess: the public address and the configured port
	Explicit       Kind = 5 // configured by the user
)

// An Endpoint is a UDP address at which this node may be reached.
type Endpoint struct {
	Addr netip.AddrPort
	Kind Kind
}

// A Set is where this node may be reached. It is immutable.
type Set struct {
	List []Endpoint // each address once

	// At is when that was last found out, changed or not; zero: never. A List
	// that only shows a change of interfaces keeps the time before (PATH-30).
	At time.Time
}

// A list gathers endpoints; the first one with an address wins.
type list []Endpoint

func (l *list) add(kind Kind, addrs ...netip.AddrPort) {
	for _, a := range addrs {
		a = netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
		if a.IsValid() && a.Port() != 0 && !slices.ContainsFunc(*l, func(e Endpoint) bool { return e.Addr == a }) {
			*l = append(*l, Endpoint{a, kind})
		}
	}
}
