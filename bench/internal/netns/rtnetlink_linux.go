package netns

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// vethPeer is VETH_INFO_PEER of linux/veth.h.
const vethPeer = 1

// A message is a request by netlink(7).
type message struct {
	kind  uint16 // RTM_…, NFT_MSG_…
	flags uint16 // NLM_F_… besides request
	body  []byte // its fixed part, and attributes
}

func (m message) encode() []byte {
	b := binary.NativeEndian.AppendUint32(nil, uint32(unix.SizeofNlMsghdr+len(m.body)))
	b = binary.NativeEndian.AppendUint16(b, m.kind)
	b = binary.NativeEndian.AppendUint16(b, m.flags|unix.NLM_F_REQUEST)
	b = append(b, make([]byte, 8)...) // sequence number and port: there is one answer
	return append(b, m.body...)
}

// request sends one message to rtnetlink(7) in the thread's namespace and waits
// for its acknowledgement.
func request(m message) error {
	m.flags |= unix.NLM_F_ACK
	return exchange(unix.NETLINK_ROUTE, m.encode())
}

// exchange sends messages, of which one asks for an acknowledgement, to a
// part of the kernel, and waits for that, or the first error.
func exchange(part int, messages []byte) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, part)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Sendto(fd, messages, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	answer := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, answer, 0)
	if err != nil {
		return err
	}
	return acknowledged(answer[:n])
}

// acknowledged returns the error in an answer.
func acknowledged(answer []byte) error {
	if len(answer) < unix.SizeofNlMsghdr+4 || binary.NativeEndian.Uint16(answer[4:]) != unix.NLMSG_ERROR {
		return fmt.Errorf("the kernel answers %x, want an acknowledgement", answer)
	}
	if code := int32(binary.NativeEndian.Uint32(answer[unix.SizeofNlMsghdr:])); code != 0 {
		return syscall.Errno(-code)
	}
	return nil
}

// attribute appends an attribute, whose values are padded to 4 bytes.
func attribute(b []byte, kind uint16, value []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(unix.SizeofRtAttr+len(value)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, value...)
	return append(b, make([]byte, -len(value)&3)...)
}

func number(n int) []byte { return binary.NativeEndian.AppendUint32(nil, uint32(n)) }

func text(s string) []byte { return append([]byte(s), 0) }

// fixed returns the fixed part of a message.
func fixed[T any](v T) []byte {
	return append([]byte(nil), unsafe.Slice((*byte)(unsafe.Pointer(&v)), unsafe.Sizeof(v))...)
}

// newVeth makes a pair of interfaces, one of them in another namespace.
func newVeth(name, peer string, peerNamespace int) message {
	other := attribute(fixed(unix.IfInfomsg{}), unix.IFLA_IFNAME, text(peer))
	other = attribute(other, unix.IFLA_NET_NS_FD, number(peerNamespace))
	info := attribute(nil, unix.IFLA_INFO_KIND, []byte("veth"))
	info = attribute(info, unix.IFLA_INFO_DATA, attribute(nil, vethPeer, other))
	b := attribute(fixed(unix.IfInfomsg{}), unix.IFLA_IFNAME, text(name))
	return message{unix.RTM_NEWLINK, unix.NLM_F_CREATE | unix.NLM_F_EXCL, attribute(b, unix.IFLA_LINKINFO, info)}
}

// setLink sets or clears IFF_UP.
func setLink(flags uint32) func(int) message {
	return func(index int) message {
		return message{unix.RTM_NEWLINK, 0, fixed(unix.IfInfomsg{Index: int32(index), Flags: flags, Change: unix.IFF_UP})}
	}
}

// setQueue sets how many packets wait for an interface.
func setQueue(packets int) func(int) message {
	return func(index int) message {
		return message{unix.RTM_NEWLINK, 0, attribute(fixed(unix.IfInfomsg{Index: int32(index)}), unix.IFLA_TXQLEN, number(packets))}
	}
}

func addAddr(p netip.Prefix) func(int) message {
	return func(index int) message {
		b := fixed(unix.IfAddrmsg{Family: unix.AF_INET, Prefixlen: uint8(p.Bits()), Index: uint32(index)})
		b = attribute(b, unix.IFA_LOCAL, p.Addr().AsSlice())
		return message{unix.RTM_NEWADDR, unix.NLM_F_CREATE, attribute(b, unix.IFA_ADDRESS, p.Addr().AsSlice())}
	}
}

func addDefaultRoute(gateway netip.Addr) func(int) message {
	return func(index int) message {
		b := route(0, unix.RT_SCOPE_UNIVERSE, index)
		return message{unix.RTM_NEWROUTE, unix.NLM_F_CREATE, attribute(b, unix.RTA_GATEWAY, gateway.AsSlice())}
	}
}

func route(bits, scope uint8, index int) []byte {
	b := fixed(unix.RtMsg{
		Family: unix.AF_INET, Dst_len: bits, Table: unix.RT_TABLE_MAIN, Protocol: unix.RTPROT_STATIC,
		Scope: scope, Type: unix.RTN_UNICAST,
	})
	return attribute(b, unix.RTA_OIF, number(index))
}

// indexOf returns the number of an interface in the thread's namespace.
func indexOf(name string) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	r, err := unix.NewIfreq(name)
	if err != nil {
		return 0, err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, r); err != nil {
		return 0, err
	}
	return int(r.Uint32()), nil
}
