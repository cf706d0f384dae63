package host

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// nextMessage cuts the first message of netlink(7) off b: struct nlmsghdr, of
// which length and type count, then the body. It fails where b does not hold
// what the length says.
func nextMessage(b []byte) (typ uint16, body, rest []byte, ok bool) {
	if len(b) < unix.NLMSG_HDRLEN {
		return 0, nil, nil, false
	}
	size := binary.NativeEndian.Uint32(b)
	if size < unix.NLMSG_HDRLEN || uint64(size) > uint64(len(b)) {
		return 0, nil, nil, false
	}
	return binary.NativeEndian.Uint16(b[4:]), b[unix.NLMSG_HDRLEN:size], after(b, int(size)), true
}

// nextAttribute cuts the first attribute of rtnetlink(7) off b: struct rtattr,
// then the value. It fails as nextMessage does.
func nextAttribute(b []byte) (typ uint16, value, rest []byte, ok bool) {
	if len(b) < unix.SizeofRtAttr {
		return 0, nil, nil, false
	}
	size := int(binary.NativeEndian.Uint16(b))
	if size < unix.SizeofRtAttr || size > len(b) {
		return 0, nil, nil, false
	}
	return binary.NativeEndian.Uint16(b[2:]), b[unix.SizeofRtAttr:size], after(b, size), true
}

// after returns what follows size bytes and their padding. The last of several
// may lack it.
func after(b []byte, size int) []byte {
	aligned := (size + unix.NLMSG_ALIGNTO - 1) &^ (unix.NLMSG_ALIGNTO - 1) // RTA_ALIGNTO is the same
	return b[min(aligned, len(b)):]
}
