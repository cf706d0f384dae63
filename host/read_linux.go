package host

import (
	"net/netip"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// readBatch is how many messages one recvmmsg takes at most; with UDP_GRO each
// holds up to 64 datagrams (WG-81).
const readBatch = 8

// An mmsghdr is struct mmsghdr of recvmmsg(2). Go pads it to the word size as
// C does.
type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32 // bytes moved
}

// A reader is the receive side of a socket, used by one goroutine. The kernel
// keeps no pointer into it past a call.
type reader struct {
	hdrs  [readBatch]mmsghdr
	iovs  [readBatch]unix.Iovec
	names [readBatch]unix.RawSockaddrInet6
	oobs  [readBatch][8]uint64 // two control messages; words, for their alignment
	want  int                  // messages asked for
	n     int                  // messages read
	errno syscall.Errno

	// Made once: a closure per read would be an allocation.
	call  func(fd uintptr) bool
	await func(fd uintptr) bool
	woken bool // await has been called before
}

func (r *reader) init(u *batchUDP) {
	r.call = func(fd uintptr) bool {
		if u.single.Load() {
			r.readOne(fd)
		} else if r.readMany(fd); refused(r.errno) {
			u.singly("recvmmsg", r.errno)
			r.readOne(fd)
		}
		return r.errno != unix.EAGAIN
	}
	r.await = func(fd uintptr) bool {
		was := r.woken
		r.woken = true
		return was || readable(fd)
	}
}

// refused reports whether reading fails because a sandbox has no such call:
// seccomp filters answer with either.
func refused(e syscall.Errno) bool { return e == unix.ENOSYS || e == unix.EPERM }

func (r *reader) readMany(fd uintptr) {
	n, _, e := unix.Syscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&r.hdrs[0])), uintptr(r.want), unix.MSG_DONTWAIT, 0, 0)
	r.n, r.errno = int(n), e
	if e != 0 {
		r.n = 0
	}
}

func (r *reader) readOne(fd uintptr) {
	n, _, e := unix.Syscall(unix.SYS_RECVMSG, fd, uintptr(unsafe.Pointer(&r.hdrs[0].hdr)), unix.MSG_DONTWAIT)
	r.n, r.errno = 0, e
	if e == 0 {
		r.hdrs[0].n, r.n = uint32(n), 1
	}
}

// prepare points the headers at the caller's buffers.
func (r *reader) prepare(ms []Message) {
	r.want = min(len(ms), readBatch)
	for i := range r.want {
		r.iovs[i].Base = unsafe.SliceData(ms[i].Buf)
		r.iovs[i].SetLen(len(ms[i].Buf))
		h := &r.hdrs[i].hdr
		h.Name = (*byte)(unsafe.Pointer(&r.names[i]))
		h.Namelen = unix.SizeofSockaddrInet6
		h.Iov = &r.iovs[i]
		h.SetIovlen(1)
		h.Control = (*byte)(unsafe.Pointer(&r.oobs[i]))
		h.SetControllen(int(unsafe.Sizeof(r.oobs[i])))
		h.Flags = 0
	}
}

// forget drops the pointers to the caller's buffers.
func (r *reader) forget() {
	for i := range r.want {
		r.iovs[i].Base = nil
	}
}

// WaitRead implements Waiter.
func (u *batchUDP) WaitRead() error {
	u.rd.woken = false
	return u.raw.Read(u.rd.await)
}

// ReadBatch implements UDPConn.
func (u *batchUDP) ReadBatch(ms []Message) (int, error) {
	r := &u.rd
	r.errno = unix.EINTR
	for r.errno == unix.EINTR {
		r.prepare(ms)
		if err := u.raw.Read(r.call); err != nil {
			return 0, err
		}
	}
	r.forget()
	if r.errno != 0 {
		return 0, os.NewSyscallError("recvmmsg", r.errno)
	}
	for i := range r.n {
		u.finish(&ms[i], i)
	}
	return r.n, nil
}

// finish fills in what the kernel said about message i.
func (u *batchUDP) finish(m *Message, i int) {
	h := &u.rd.hdrs[i]
	m.N = int(h.n)
	m.Segment = m.N
	m.From = u.sender(&u.rd.names[i])
	oob := unsafe.Slice((*byte)(unsafe.Pointer(&u.rd.oobs[i])), unsafe.Sizeof(u.rd.oobs[i]))
	oob = oob[:min(len(oob), int(h.hdr.Controllen))]
	for len(oob) >= unix.SizeofCmsghdr {
		c := (*unix.Cmsghdr)(unsafe.Pointer(&oob[0]))
		size := int(c.Len)
		if size < unix.CmsgLen(0) || size > len(oob) {
			return
		}
		u.onControl(m, c, oob[unix.CmsgLen(0):size])
		oob = oob[min(unix.CmsgSpace(size-unix.CmsgLen(0)), len(oob)):]
	}
}

// onControl applies one control message. Both that we ask for carry an int.
func (u *batchUDP) onControl(m *Message, c *unix.Cmsghdr, data []byte) {
	if len(data) < 4 {
		return
	}
	v := *(*uint32)(unsafe.Pointer(&data[0]))
	switch {
	case c.Level == unix.IPPROTO_UDP && c.Type == unix.UDP_GRO && v > 0:
		m.Segment = min(int(v), m.N)
	case c.Level == unix.SOL_SOCKET && c.Type == unix.SO_RXQ_OVFL:
		u.overflows.Store(v)
	}
}

// sender converts the kernel's socket address of either family.
func (u *batchUDP) sender(sa *unix.RawSockaddrInet6) netip.AddrPort {
	port := (*[2]byte)(unsafe.Pointer(&sa.Port)) // network byte order
	p := uint16(port[0])<<8 | uint16(port[1])
	if sa.Family == unix.AF_INET {
		sa4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(sa))
		return netip.AddrPortFrom(netip.AddrFrom4(sa4.Addr), p)
	}
	a := netip.AddrFrom16(sa.Addr).Unmap()
	if sa.Scope_id != 0 && a.Is6() {
		a = a.WithZone(u.zones.name(sa.Scope_id))
	}
	return netip.AddrPortFrom(a, p)
}
