package ground

import (
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// statusDNAT is the bit of a connection's status that says that its destination
// is translated (IPS_DST_NAT of linux/netfilter/nf_conntrack_common.h).
const statusDNAT = 1 << 5

// Tables of a gateway.
var (
	natTable    = &nftables.Table{Family: nftables.TableFamilyIPv4, Name: "nat"}
	filterTable = &nftables.Table{Family: nftables.TableFamilyIPv4, Name: "filter"}
)

// blockTables are there while UDP is blocked: between LAN and core, and between
// the ports of the bridge.
var blockTables = []*nftables.Table{
	{Family: nftables.TableFamilyIPv4, Name: "block"},
	{Family: nftables.TableFamilyBridge, Name: "block"},
}

// translate sets the gateway up as its kind says.
func (s *Site) translate() error {
	if s.nat == Public {
		return nil
	}
	err := s.gateway.firewall(func(c *nftables.Conn) {
		s.addMasquerade(c)
		addFilter(c)
	})
	if err != nil {
		return err
	}
	switch s.nat {
	case FullCone:
		return s.openCone()
	case Blocked:
		return s.BlockUDP(true)
	case Mapped:
		s.mapper, err = newMapper(s)
	}
	return err
}

// addMasquerade translates the source of what leaves to the core.
func (s *Site) addMasquerade(c *nftables.Conn) {
	c.AddTable(natTable)
	random := s.nat == Symmetric || s.nat == Mapped
	addRule(c, addChain(c, natTable, "postrouting", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource),
		interfaceIs(expr.MetaKeyOIFNAME, outsideName), []expr.Any{&expr.Masq{FullyRandom: random}})
	addChain(c, natTable, "prerouting", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest)
}

// coneTimeout is how long a full cone stays open after a host's last datagram
// (RFC 4787, REQ-5: 5 minutes are recommended).
const coneTimeout = 5 * time.Minute

// openCone makes the gateway remember which host sends from which port, and lead
// to it what comes to that port, from anywhere.
func (s *Site) openCone() error {
	hosts := &nftables.Set{
		Table: natTable, Name: "hosts", IsMap: true, Dynamic: true, HasTimeout: true, Timeout: coneTimeout,
		KeyType: nftables.TypeInetService, DataType: nftables.TypeIPAddr,
	}
	return s.gateway.firewall(func(c *nftables.Conn) { addCone(c, hosts) })
}

// addCone adds the two rules of a full cone.
func addCone(c *nftables.Conn, hosts *nftables.Set) {
	c.AddSet(hosts, nil) // fails only for elements, of which there are none
	remember := &nftables.Chain{Table: natTable, Name: "remember", Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter}
	addRule(c, c.AddChain(remember), interfaceIs(expr.MetaKeyOIFNAME, outsideName), datagrams, []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 2}, // source port
		&expr.Payload{DestRegister: 2, Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 4},  // source address
		&expr.Dynset{SrcRegKey: 1, SrcRegData: 2, SetName: hosts.Name, SetID: hosts.ID, Operation: uint32(unix.NFT_DYNSET_OP_UPDATE)},
	})
	addRule(c, &nftables.Chain{Table: natTable, Name: "prerouting"}, interfaceIs(expr.MetaKeyIIFNAME, outsideName), datagrams, []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2}, // destination port
		&expr.Lookup{SourceRegister: 1, DestRegister: 1, IsDestRegSet: true, SetName: hosts.Name, SetID: hosts.ID},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: 1},
	})
}

// addFilter drops what comes from the core and belongs to no flow from inside.
// The input chain matters, too: a datagram that reached the gateway itself would
// take the port that translation wants to keep for the host's own flow to its
// sender.
func addFilter(c *nftables.Conn) {
	c.AddTable(filterTable)
	for name, hook := range map[string]*nftables.ChainHook{"input": nftables.ChainHookInput, "forward": nftables.ChainHookForward} {
		chain := addChain(c, filterTable, name, nftables.ChainTypeFilter, hook, nftables.ChainPriorityFilter)
		outside := interfaceIs(expr.MetaKeyIIFNAME, outsideName)
		addRule(c, chain, outside, ctHas(expr.CtKeySTATE, expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED), verdict(expr.VerdictAccept))
		addRule(c, chain, outside, ctHas(expr.CtKeySTATUS, statusDNAT), verdict(expr.VerdictAccept))
		addRule(c, chain, outside, verdict(expr.VerdictDrop))
	}
}

// BlockUDP makes the gateway lose all UDP that passes it, between LAN and core
// and between hosts of the LAN, or ends that. Senders are not told.
func (s *Site) BlockUDP(blocked bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.blocked == blocked {
		return nil
	}
	s.blocked = blocked
	return s.gateway.firewall(func(c *nftables.Conn) {
		for _, t := range blockTables {
			if !blocked {
				c.DelTable(t)
				continue
			}
			c.AddTable(t)
			addRule(c, addChain(c, t, "forward", nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityRaw),
				datagrams, verdict(expr.VerdictDrop))
		}
	})
}

// mapPort leads an outside UDP port to a host.
func (s *Site) mapPort(outside uint16, to netip.AddrPort) error {
	return s.gateway.firewall(func(c *nftables.Conn) {
		addRule(c, &nftables.Chain{Table: natTable, Name: "prerouting"},
			interfaceIs(expr.MetaKeyIIFNAME, outsideName), datagrams,
			[]expr.Any{
				&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
				&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: bigEndian(outside)},
				&expr.Immediate{Register: 1, Data: to.Addr().AsSlice()},
				&expr.Immediate{Register: 2, Data: bigEndian(to.Port())},
				&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: 1, RegProtoMin: 2},
			})
	})
}

// unmapPorts forgets all mapped ports.
func (s *Site) unmapPorts() error {
	return s.gateway.firewall(func(c *nftables.Conn) {
		c.FlushChain(&nftables.Chain{Table: natTable, Name: "prerouting"})
	})
}

// datagrams matches UDP.
var datagrams = []expr.Any{
	&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 9, Len: 1},
	&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{protocolUDP}},
}

// interfaceIs matches the interface that a packet has come from or goes to.
func interfaceIs(key expr.MetaKey, name string) []expr.Any {
	padded := make([]byte, unix.IFNAMSIZ)
	copy(padded, name)
	return []expr.Any{
		&expr.Meta{Key: key, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: padded},
	}
}

// ctHas matches a connection with one of these bits in its state or status.
func ctHas(key expr.CtKey, bits uint32) []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: key, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(bits), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
	}
}

func verdict(kind expr.VerdictKind) []expr.Any { return []expr.Any{&expr.Verdict{Kind: kind}} }

func bigEndian(v uint16) []byte { return binary.BigEndian.AppendUint16(nil, v) }

// addChain adds a base chain.
func addChain(c *nftables.Conn, t *nftables.Table, name string, kind nftables.ChainType, hook *nftables.ChainHook, priority *nftables.ChainPriority) *nftables.Chain {
	return c.AddChain(&nftables.Chain{Table: t, Name: name, Type: kind, Hooknum: hook, Priority: priority})
}

// addRule adds a rule to the end of a chain.
func addRule(c *nftables.Conn, chain *nftables.Chain, parts ...[]expr.Any) {
	var all []expr.Any
	for _, p := range parts {
		all = append(all, p...)
	}
	c.AddRule(&nftables.Rule{Table: chain.Table, Chain: chain, Exprs: all})
}
