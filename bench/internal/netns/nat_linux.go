package netns

import (
	"encoding/binary"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// Names and numbers of linux/netfilter.h and linux/netfilter_ipv4.h.
const (
	tableName   = "gateway"
	hookIn      = 1   // NF_INET_LOCAL_IN
	hookOut     = 4   // NF_INET_POST_ROUTING
	orderFilter = 0   // NF_IP_PRI_FILTER
	orderNAT    = 100 // NF_IP_PRI_NAT_SRC
	drop        = 0   // NF_DROP
	accept      = 1   // NF_ACCEPT
)

// Forward makes the namespace a router.
func (n *Namespace) Forward() error { return n.write("/proc/sys/net/ipv4/ip_forward", "1") }

// Translate makes the namespace a router that hides what it forwards behind its
// own addresses, ports kept where they are free, as one at home does. What comes
// for itself is dropped: a datagram that nobody has asked for would take the port
// that the answer to it needs.
func (n *Namespace) Translate() error {
	err := n.Forward()
	if err == nil {
		err = n.do(func() error { return exchange(unix.NETLINK_NETFILTER, translation()) })
	}
	if err != nil {
		return fmt.Errorf("%s: translate addresses: %w", n.name, err)
	}
	return nil
}

// translation is a transaction of nf_tables: a table with a chain that translates
// and one that drops.
func translation() []byte {
	masquerade := attribute(nil, unix.NFTA_EXPR_NAME, text("masq"))
	rule := attribute(nil, unix.NFTA_RULE_TABLE, text(tableName))
	rule = attribute(rule, unix.NFTA_RULE_CHAIN, text("nat"))
	rule = attribute(rule, unix.NFTA_RULE_EXPRESSIONS, attribute(nil, unix.NFTA_LIST_ELEM, masquerade))
	return slices.Concat(
		transaction(unix.NFNL_MSG_BATCH_BEGIN),
		tables(unix.NFT_MSG_NEWTABLE, 0, attribute(nil, unix.NFTA_TABLE_NAME, text(tableName))),
		tables(unix.NFT_MSG_NEWCHAIN, 0, chain("filter", hookIn, orderFilter, drop)),
		tables(unix.NFT_MSG_NEWCHAIN, 0, chain("nat", hookOut, orderNAT, accept)),
		tables(unix.NFT_MSG_NEWRULE, unix.NLM_F_APPEND|unix.NLM_F_ACK, rule),
		transaction(unix.NFNL_MSG_BATCH_END),
	)
}

// chain describes a chain named for its kind, at a hook, and what becomes of
// packets that no rule of it decides on.
func chain(kind string, hook, order, policy uint32) []byte {
	at := attribute(nil, unix.NFTA_HOOK_HOOKNUM, ordered(hook))
	at = attribute(at, unix.NFTA_HOOK_PRIORITY, ordered(order))
	b := attribute(nil, unix.NFTA_CHAIN_TABLE, text(tableName))
	b = attribute(b, unix.NFTA_CHAIN_NAME, text(kind))
	b = attribute(b, unix.NFTA_CHAIN_HOOK, at)
	b = attribute(b, unix.NFTA_CHAIN_POLICY, ordered(policy))
	return attribute(b, unix.NFTA_CHAIN_TYPE, text(kind))
}

// ordered is a number in network byte order, as nf_tables has them.
func ordered(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }

// tables is a message to nf_tables about IPv4.
func tables(kind, flags uint16, attributes []byte) []byte {
	m := message{unix.NFNL_SUBSYS_NFTABLES<<8 | kind, flags | unix.NLM_F_CREATE, append([]byte{unix.NFPROTO_IPV4, unix.NFNETLINK_V0, 0, 0}, attributes...)}
	return m.encode()
}

// transaction is where a transaction begins or ends.
func transaction(kind uint16) []byte {
	return message{kind, 0, []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, unix.NFNL_SUBSYS_NFTABLES}}.encode()
}
