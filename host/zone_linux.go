package host

import (
	"fmt"
	"net"
	"strconv"
	"sync"
)

// maxZones bounds the cache of interface names; beyond it names are asked for
// each time.
const maxZones = 64

// zones remembers which interface has which name, so that a link-local sender
// does not cost a walk over all interfaces for each datagram. It lives as long
// as its socket: a change of the host's network brings a new one.
type zones struct {
	mu      sync.Mutex // taken only for link-local addresses
	names   map[uint32]string
	indices map[string]uint32
}

// name returns the zone of an interface: its name, or its number in decimal
// when it has none any more.
func (z *zones) name(index uint32) string {
	z.mu.Lock()
	defer z.mu.Unlock()
	if name, ok := z.names[index]; ok {
		return name
	}
	name := strconv.FormatUint(uint64(index), 10)
	if ifi, err := net.InterfaceByIndex(int(index)); err == nil {
		name = ifi.Name
	}
	if z.names == nil {
		z.names = make(map[uint32]string)
	}
	if len(z.names) < maxZones {
		z.names[index] = name
	}
	return name
}

// index returns the interface number of a zone.
func (z *zones) index(name string) (uint32, error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	if index, ok := z.indices[name]; ok {
		return index, nil
	}
	index, err := lookUpZone(name)
	if err != nil {
		return 0, err
	}
	if z.indices == nil {
		z.indices = make(map[string]uint32)
	}
	if len(z.indices) < maxZones {
		z.indices[name] = index
	}
	return index, nil
}

func lookUpZone(name string) (uint32, error) {
	if ifi, err := net.InterfaceByName(name); err == nil {
		return uint32(ifi.Index), nil
	}
	index, err := strconv.ParseUint(name, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("no interface has the name of zone %q", name)
	}
	return uint32(index), nil
}
