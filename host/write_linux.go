package host

import (
	"fmt"
	"net/netip"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/seed94491740/tsnode/packet"
)

const (
	// writeBatch is how many messages one sendmmsg takes at most.
	writeBatch = 64

	// maxSegments is how many datagrams one message may be cut into: the
	// kernel's UDP_MAX_SEGMENTS before it was raised to 128 (Linux 6.9).
	maxSegments = 64

	// The largest UDP payloads in bytes (RFC 768, RFC 791, RFC 8200): 65535
	// less the headers that count.
	maxPayload4 = 65507
	maxPayload6 = 65527
)

// A writer is a batch of messages to one address.
type writer struct {
	hdrs  [writeBatch]mmsghdr
	iovs  [writeBatch]unix.Iovec
	oobs  [writeBatch][4]uint64 // one control message; words, for its alignment
	sizes [writeBatch]int       // UDP_SEGMENT size; 0 = one datagram

	name     unix.RawSockaddrInet6 // destination, of either family
	nameLen  uint32
	n        int // messages prepared
	sent     int // of them
	errno    syscall.Errno
	proven   bool                  // sendmmsg has worked: EPERM is the firewall's word, not a sandbox's
	transmit func(fd uintptr)      // sends from message sent on; advances sent or sets errno
	call     func(fd uintptr) bool // made once: a closure per write would be an allocation
}

func (w *writer) init(u *batchUDP) {
	w.transmit = w.sendMany
	w.call = func(fd uintptr) bool {
		switch {
		case u.single.Load():
			w.sendOne(fd)
		default:
			w.transmit(fd)
			if e := w.errno; !w.proven && refused(e) && w.retryOne(fd) {
				u.singly("sendmmsg", e)
			}
		}
		return w.errno != unix.EAGAIN
	}
}

// retryOne tells a sandbox that refuses sendmmsg from a network that refuses
// the message.
func (w *writer) retryOne(fd uintptr) bool {
	missing := w.errno == unix.ENOSYS
	w.sendOne(fd)
	return missing || w.errno == 0
}

func (w *writer) sendMany(fd uintptr) {
	n, _, e := unix.Syscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&w.hdrs[w.sent])), uintptr(w.n-w.sent), unix.MSG_DONTWAIT, 0, 0)
	w.errno = e
	if e == 0 {
		w.sent += int(n)
		w.proven = true
	}
}

func (w *writer) sendOne(fd uintptr) {
	_, _, e := unix.Syscall(unix.SYS_SENDMSG, fd, uintptr(unsafe.Pointer(&w.hdrs[w.sent].hdr)), unix.MSG_DONTWAIT)
	w.errno = e
	if e == 0 {
		w.sent++
	}
}

// WriteBursts implements UDPConn: one message per burst where the kernel
// segments, else one per datagram. It waits only for room in the socket's send
// buffer (WG-84).
func (u *batchUDP) WriteBursts(to netip.AddrPort, bursts []packet.Burst) error {
	u.writeMu.Lock()
	defer u.writeMu.Unlock()
	if err := u.address(to); err != nil {
		return err
	}
	var first error
	for i := range bursts {
		keep(&first, u.add(bursts[i]))
	}
	keep(&first, u.flush())
	return first
}

func keep(first *error, err error) {
	if *first == nil {
		*first = err
	}
}

// address sets the destination of both writers.
func (u *batchUDP) address(to netip.AddrPort) error {
	a := to.Addr().Unmap()
	if !a.IsValid() || a.Is6() != u.v6 {
		return familyError(to)
	}
	w := &u.wr
	port := (*[2]byte)(unsafe.Pointer(&w.name.Port)) // network byte order
	port[0], port[1] = byte(to.Port()>>8), byte(to.Port())
	if u.v6 {
		w.nameLen = unix.SizeofSockaddrInet6
		w.name.Family, w.name.Addr, w.name.Scope_id = unix.AF_INET6, a.As16(), 0
		if z := a.Zone(); z != "" {
			id, err := u.zones.index(z)
			if err != nil {
				return fmt.Errorf("host: send to %v: %w", to, err)
			}
			w.name.Scope_id = id
		}
	} else {
		w.nameLen = unix.SizeofSockaddrInet4
		sa := (*unix.RawSockaddrInet4)(unsafe.Pointer(&w.name))
		sa.Family, sa.Addr = unix.AF_INET, a.As4()
	}
	return nil
}

// add prepares a burst, in messages no longer than the kernel takes.
func (u *batchUDP) add(b packet.Burst) (err error) {
	stride := b.Room + b.Size
	per := 1
	if u.segmentation.Load() {
		per = min(maxSegments, u.maxPayload()/max(stride, 1))
	}
	step := max(per, 1) * stride
	for buf := b.Buf; len(buf) > 0; {
		part := buf
		if len(part) > step && step > 0 {
			part = part[:step]
		}
		buf = buf[len(part):]
		if u.wr.n == writeBatch {
			keep(&err, u.flush())
		}
		u.wr.add(part, stride)
	}
	return err
}

func (u *batchUDP) maxPayload() int {
	if u.v6 {
		return maxPayload6
	}
	return maxPayload4
}

// add prepares one message, cut into datagrams of size bytes if it is longer.
func (w *writer) add(b []byte, size int) {
	i := w.n
	w.n++
	w.sizes[i] = 0
	w.iovs[i].Base = unsafe.SliceData(b)
	w.iovs[i].SetLen(len(b))
	h := &w.hdrs[i].hdr
	h.Name, h.Namelen = (*byte)(unsafe.Pointer(&w.name)), w.nameLen
	h.Iov = &w.iovs[i]
	h.SetIovlen(1)
	h.Control = nil
	h.SetControllen(0)
	if len(b) > size {
		w.segment(i, size)
	}
}

// segment adds the UDP_SEGMENT control message to message i.
func (w *writer) segment(i, size int) {
	w.sizes[i] = size
	c := (*unix.Cmsghdr)(unsafe.Pointer(&w.oobs[i]))
	c.Level, c.Type = unix.IPPROTO_UDP, unix.UDP_SEGMENT
	c.SetLen(unix.CmsgLen(2))
	*(*uint16)(unsafe.Add(unsafe.Pointer(c), unix.CmsgLen(0))) = uint16(size)
	h := &w.hdrs[i].hdr
	h.Control = (*byte)(unsafe.Pointer(c))
	h.SetControllen(unix.CmsgSpace(2))
}

// buf returns the bytes of message i.
func (w *writer) buf(i int) []byte { return unsafe.Slice(w.iovs[i].Base, int(w.iovs[i].Len)) }

// flush sends what was prepared. A message that fails is lost and the ones
// behind it are tried, in order (PATH-105).
func (u *batchUDP) flush() error {
	w := &u.wr
	defer w.reset()
	var first error
	for w.sent < w.n {
		if err := u.raw.Write(w.call); err != nil {
			return err // the socket is closed
		}
		switch {
		case w.errno == 0 || w.errno == unix.EINTR:
		case w.sizes[w.sent] > 0 && u.cannotSegment(w.errno):
			keep(&first, u.resend(w.buf(w.sent), w.sizes[w.sent]))
			w.sent++
		default:
			keep(&first, os.NewSyscallError("sendmmsg", w.errno))
			w.sent++
		}
	}
	return first
}

// cannotSegment reports whether e is about the segmenting of a message, not
// about its destination. EIO says that this device or route never can, so the
// socket stops asking (PATH-59); EINVAL and EMSGSIZE say that one datagram is
// longer than the route's MTU, which IP fragments when it comes alone.
func (u *batchUDP) cannotSegment(e syscall.Errno) bool {
	if e == unix.EIO {
		u.segmentation.Store(false)
		u.fallbacks.add(noSegmentation, e)
		return true
	}
	return e == unix.EINVAL || e == unix.EMSGSIZE
}

// resend sends the datagrams of a message one per message.
func (u *batchUDP) resend(b []byte, size int) (first error) {
	w := u.forPlain()
	w.name, w.nameLen = u.wr.name, u.wr.nameLen
	defer w.reset()
	for len(b) > 0 {
		n := min(size, len(b))
		w.add(b[:n], n)
		if b = b[n:]; w.n == writeBatch || len(b) == 0 {
			keep(&first, u.drain(w))
		}
	}
	return first
}

// forPlain returns the writer of what the kernel would not segment.
func (u *batchUDP) forPlain() *writer {
	if u.plain == nil {
		u.plain = new(writer)
		u.plain.init(u)
	}
	return u.plain
}

// drain sends the messages of w, none of which is segmented.
func (u *batchUDP) drain(w *writer) (first error) {
	for w.sent < w.n {
		if err := u.raw.Write(w.call); err != nil {
			return err
		}
		if w.errno != 0 && w.errno != unix.EINTR {
			keep(&first, os.NewSyscallError("sendmmsg", w.errno))
			w.sent++
		}
	}
	w.reset()
	return first
}

// reset forgets the prepared messages and the memory they point to.
func (w *writer) reset() {
	for i := range w.n {
		w.iovs[i].Base = nil
	}
	w.n, w.sent = 0, 0
}
