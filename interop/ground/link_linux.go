package ground

import (
	"cmp"
	"container/heap"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	tunDevice = "/dev/net/tun"

	// queueLimit is how many packets may wait in one direction of a link; as in
	// a router, more are lost.
	queueLimit = 2000

	// maxPacket is the size of the largest IP packet in bytes.
	maxPacket = 65535
)

// A Link joins two namespaces by a TUN device in each, and this process in
// between.
type Link struct {
	ends       [2]*os.File
	conditions atomic.Pointer[Conditions]
	group      sync.WaitGroup
}

// newLink makes a link whose devices have these names; both are up and have no
// address. seed makes its losses repeatable.
func newLink(a *Namespace, nameA string, b *Namespace, nameB string, seed uint64) (*Link, error) {
	l := new(Link)
	l.Set(Conditions{})
	for i, end := range []struct {
		ns   *Namespace
		name string
	}{{a, nameA}, {b, nameB}} {
		f, err := openTUN(end.ns, end.name)
		if err != nil {
			l.Close()
			return nil, err
		}
		l.ends[i] = f
	}
	for i := range l.ends {
		d := &direction{from: l.ends[i], to: l.ends[1-i], conditions: &l.conditions, judge: newJudge(2*seed + uint64(i)), waiting: make(chan parcel, queueLimit)}
		l.group.Go(d.read)
		l.group.Go(d.write)
	}
	return l, nil
}

// openTUN makes a TUN device in a namespace, and switches it on.
func openTUN(n *Namespace, name string) (f *os.File, err error) {
	var fd int
	err = n.Do(func() (err error) {
		if fd, err = unix.Open(tunDevice, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0); err != nil {
			return err
		}
		req, err := unix.NewIfreq(name)
		if err != nil {
			return err
		}
		req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TUNSETIFF, uintptr(unsafe.Pointer(req))); errno != 0 {
			unix.Close(fd)
			return errno
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("%s: make TUN device %s: %w", n.name, name, err)
	}
	f = os.NewFile(uintptr(fd), name)
	if err := n.up(name); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// Set changes what the link does to packets from now on, both ways.
func (l *Link) Set(c Conditions) { l.conditions.Store(&c) }

// Close takes the link away, and its devices with it.
func (l *Link) Close() {
	for _, f := range l.ends {
		if f != nil {
			f.Close()
		}
	}
	l.group.Wait()
}

// A parcel is a packet under way.
type parcel struct {
	due   time.Time
	order uint64 // in which packets with the same due time go out
	data  []byte
}

// A direction carries packets from one end of a link to the other.
type direction struct {
	from, to   *os.File
	conditions *atomic.Pointer[Conditions]
	judge      *judge
	waiting    chan parcel // from read to write; closed by read
}

// read takes packets in until the link is closed. Those that need not wait go
// out at once.
func (d *direction) read() {
	defer close(d.waiting)
	buf := make([]byte, maxPacket)
	for order := uint64(0); ; order++ {
		n, err := d.from.Read(buf)
		if err != nil {
			return
		}
		c := d.conditions.Load()
		due, lost := d.judge.fate(c, buf[:n], time.Now())
		switch {
		case lost:
		case c.immediate():
			d.to.Write(buf[:n])
		default:
			select {
			case d.waiting <- parcel{due, order, append([]byte(nil), buf[:n]...)}:
			default:
			}
		}
	}
}

// write sends packets out when they are due, until the link is closed.
func (d *direction) write() {
	var queue parcels
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case p, ok := <-d.waiting:
			if !ok {
				return
			}
			if len(queue) < queueLimit {
				heap.Push(&queue, p)
			}
		case <-timer.C:
		}
		for len(queue) > 0 && !queue[0].due.After(time.Now()) {
			if _, err := d.to.Write(heap.Pop(&queue).(parcel).data); errors.Is(err, os.ErrClosed) {
				return
			}
		}
		if len(queue) > 0 {
			timer.Reset(time.Until(queue[0].due))
		}
	}
}

// parcels are a heap by time.
type parcels []parcel

func (p parcels) Len() int      { return len(p) }
func (p parcels) Swap(i, j int) { p[i], p[j] = p[j], p[i] }
func (p parcels) Less(i, j int) bool {
	return cmp.Or(p[i].due.Compare(p[j].due), cmp.Compare(p[i].order, p[j].order)) < 0
}

func (p *parcels) Push(x any) { *p = append(*p, x.(parcel)) }

func (p *parcels) Pop() any {
	old := *p
	last := old[len(old)-1]
	old[len(old)-1] = parcel{}
	*p = old[:len(old)-1]
	return last
}
