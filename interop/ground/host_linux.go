package ground

import (
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"sync"

	"github.com/vishvananda/netlink"
)

// hostInterface is the name of a host's interface.
const hostInterface = "eth0"

// A Host is a machine on a site's LAN.
type Host struct {
	*Namespace

	mu   sync.Mutex
	site *Site
	addr netip.Addr
}

// Host adds a host to the site's LAN. name is for error messages.
func (s *Site) Host(name string) (*Host, error) {
	ns, err := newNamespace(name)
	if err != nil {
		return nil, err
	}
	h := &Host{Namespace: ns}
	if err := h.Move(s); err != nil {
		ns.Close()
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hosts = append(s.hosts, h)
	return h, nil
}

// Addr returns the host's address on its LAN.
func (h *Host) Addr() netip.Addr {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.addr
}

// Start starts a program on the host.
func (h *Host) Start(cmd *exec.Cmd) error { return h.Namespace.Start(cmd) }

// Move takes the host's cable out and puts it in at a site, the same or another:
// its interface goes, and comes again with another address.
func (h *Host) Move(to *Site) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	port, addr, err := to.lease()
	if err != nil {
		return err
	}
	return h.move(to, port, addr)
}

// MoveUnseen is Move to a site that happens to give the host the address it had,
// behind a gateway with the same address, as homes do: nothing in the host's
// configuration tells that it is elsewhere.
func (h *Host) MoveUnseen(to *Site) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	port, _, err := to.lease()
	if err != nil {
		return err
	}
	return h.move(to, port, h.addr)
}

// move gives the host a new interface, whose other end is a port at a site.
func (h *Host) move(to *Site, port string, addr netip.Addr) error {
	if h.site != nil {
		l, err := h.link(hostInterface)
		if err != nil {
			return err
		}
		if err := h.net.LinkDel(l); err != nil {
			return fmt.Errorf("%s: remove %s: %w", h, hostInterface, err)
		}
	}
	cable := &netlink.Veth{LinkAttrs: named(hostInterface), PeerName: port, PeerNamespace: netlink.NsFd(to.gateway.fd)}
	if err := h.net.LinkAdd(cable); err != nil {
		return fmt.Errorf("%s: make %s: %w", h, hostInterface, err)
	}
	if err := to.plug(port); err != nil {
		return err
	}
	h.site = to
	return errors.Join(h.up(hostInterface), h.setAddr(addr))
}

// Renumber gives the host another address on the same LAN, as a new lease does.
func (h *Host) Renumber() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	_, addr, err := h.site.lease()
	if err != nil {
		return err
	}
	if err := h.delAddr(hostInterface, netip.PrefixFrom(h.addr, h.site.lan.Bits())); err != nil {
		return err
	}
	return h.setAddr(addr)
}

// setAddr gives the interface its only address, and the host its default route.
func (h *Host) setAddr(addr netip.Addr) error {
	h.addr = addr
	return errors.Join(
		h.addAddr(hostInterface, netip.PrefixFrom(addr, h.site.lan.Bits())),
		h.route(hostInterface, everywhere, h.site.inside()),
	)
}

// lease returns the name of a free port of the site's bridge, and a free address.
func (s *Site) lease() (port string, addr netip.Addr, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.leases == maxLeases {
		return "", netip.Addr{}, fmt.Errorf("%s: all %d addresses have been given out", s.gateway, maxLeases)
	}
	s.leases++
	last := s.lan.Addr().As4()
	last[3] += byte(s.firstLease + s.leases - 1)
	return fmt.Sprintf("port%d", s.leases), netip.AddrFrom4(last), nil
}

// plug makes an interface a port of the site's bridge.
func (s *Site) plug(port string) error {
	l, err := s.gateway.link(port)
	if err != nil {
		return err
	}
	bridge, err := s.gateway.link(insideName)
	if err != nil {
		return err
	}
	if err := s.gateway.net.LinkSetMaster(l, bridge); err != nil {
		return fmt.Errorf("%s: put %s into the bridge: %w", s.gateway, port, err)
	}
	return s.gateway.up(port)
}
