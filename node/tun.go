package node

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/seed94491740/tsnode/control"
	"github.com/seed94491740/tsnode/dataplane"
	"github.com/seed94491740/tsnode/dns"
	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/netstack"
)

// Errors of a node with a TUN device; compare with errors.Is.
var (
	// ErrNoStack says that a node with a TUN device has no stack of its own: Dial,
	// Listen and their kin are not for it.
	ErrNoStack = errors.New("the node's packets go to a TUN device: use the sockets of the operating system")

	// ErrDeviceGone ends a node whose TUN device was removed (VPN-43).
	ErrDeviceGone = dataplane.ErrDeviceGone

	// ErrDeviceLoop says that a node with a TUN device may use no exit node: its own
	// packets would go into the device, too, and so to itself (VPN-51).
	ErrDeviceLoop = errors.New("the TUN device is in the same network as the node, whose own packets would go into it with an exit node")
)

// openDevice makes the overlay on the device that the program has given, and beside
// it a stack for the services that are the node's, and not the operating system's.
func (r *runtime) openDevice() (err error) {
	if r.device, err = r.tun(r.log); err != nil {
		return err
	}
	if r.services, err = netstack.New(netstack.Config{Beside: true, Buffers: r.buffers, Logger: r.log}); err != nil {
		r.device.Close()
		return err
	}
	link := r.services.Links()[0]
	r.overlay.links, r.overlay.newDelivery = r.device.Beside(dataplane.Services{
		Link: link, NewDelivery: func() dataplane.Delivery { return link.NewDelivery() },
		Answers: dns.IsService, Own: r.hasAddr, Serves: r.isPeerAPI,
	})
	return nil
}

// hasAddr reports whether an address is one of ours on the tailnet.
func (r *runtime) hasAddr(a netip.Addr) bool {
	nm := r.netmap()
	return nm != nil && nm.Self.HasAddr(a)
}

// isPeerAPI reports whether the node's service for peers is at one of its addresses
// and a port.
func (r *runtime) isPeerAPI(at netip.AddrPort) bool {
	policy, port := r.self.policy.Get(), at.Port()
	if at.Addr().Is4() {
		return port == policy.PeerAPI4
	}
	return port == policy.PeerAPI6
}

// besideSystem returns a port for the service for peers that the operating system
// does not choose for connections of its own: those of Linux begin below, and other
// systems let a program have the upper ones less often.
func besideSystem(port uint16) uint16 {
	const first = 61000 // net.ipv4.ip_local_port_range ends at 60999
	if port == 0 {
		return 0
	}
	return first + port%(1<<16-first)
}

// userspace tells the tailnet whether the node has a stack of its own.
func (r *runtime) userspace() control.OptBool { return control.OptBoolOf(r.tun == nil) }

// checkStack fails when there is no stack of our own.
func (r *runtime) checkStack() error {
	if r.stack == nil {
		return ErrNoStack
	}
	return nil
}

// underlay returns the network of a node that the program has given none: with a
// TUN device the sockets are marked, if this user may do that, for rules to keep
// their packets out of it (VPN-51).
func (n *Node) underlay() host.Network {
	if n.TUN != nil && host.MayMark() {
		return host.OS{Mark: host.TunnelMark}
	}
	return host.OS{}
}

// checkLoop refuses an exit node when the node's own packets could not be told from
// those that are to go through it (VPN-51). A network that the program has given is
// its own business, and so is a device in another network than ours.
func (r *runtime) checkLoop(p *Preferences) error {
	if r.device == nil || !r.unmarked {
		return nil
	}
	return checkLoop(p.ExitNode, r.device.Name())
}

func checkLoop(exitNode, device string) error {
	if exitNode == "" || device == "" || !host.HasInterface(device) {
		return nil
	}
	return fmt.Errorf("exit node %s: %w: run the node with CAP_NET_ADMIN (Linux), or in another network namespace than device %s", exitNode, ErrDeviceLoop, device)
}

// DeviceStats returns the counters of the node's TUN device; zeros without one. It
// does not start the node.
func (n *Node) DeviceStats() dataplane.DeviceStats {
	n.life.Lock()
	r := n.run
	n.life.Unlock()
	if r == nil || r.device == nil {
		return dataplane.DeviceStats{}
	}
	return r.device.Stats()
}
