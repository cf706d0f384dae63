package link

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// maxBatch is how many packets are taken in before those that are due go out.
const maxBatch = 32

// timerSlack is how much later than asked for the kernel may wake the link;
// 50 µs is usual.
const timerSlack = time.Microsecond

// A Link joins two devices. Set, Counts and Lag may be used while it runs.
type Link struct {
	files  [2]*os.File
	fds    [2]int // of the files
	header int    // bytes before each packet that are not on the wire
	began  time.Time

	mu   sync.Mutex // held while packets are moved, not while none is there
	ways [2]*way    // from the device of that index to the other
}

// New returns a link of two devices, whose packets have a header of so many
// bytes before them. seed makes chance repeatable.
func New(a, b *os.File, header int, seed uint64) (*Link, error) {
	l := &Link{
		files: [2]*os.File{a, b}, header: header, began: time.Now(),
		ways: [2]*way{newWay(2 * seed), newWay(2*seed + 1)},
	}
	for i, f := range l.files {
		l.fds[i] = int(f.Fd())
		if err := unix.SetNonblock(l.fds[i], true); err != nil {
			return nil, fmt.Errorf("%s: %w", f.Name(), err)
		}
	}
	return l, nil
}

// Set changes what the link does from now on, both ways, and starts counting
// anew.
func (l *Link) Set(c Conditions) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, w := range l.ways {
		w.set(c, l.now())
		w.counts, w.sent, w.lag, w.lagMost = Counts{}, 0, 0, 0
	}
}

// Counts returns what has become of packets, each way, since Set.
func (l *Link) Counts() [2]Counts {
	l.mu.Lock()
	defer l.mu.Unlock()
	return [2]Counts{l.ways[0].counts, l.ways[1].counts}
}

// Lag returns how late packets went out since Set, both ways together.
func (l *Link) Lag() Lag {
	l.mu.Lock()
	defer l.mu.Unlock()
	a, b := l.ways[0], l.ways[1]
	return Lag{Mean: (a.lag + b.lag) / time.Duration(max(1, a.sent+b.sent)), Most: max(a.lagMost, b.lagMost)}
}

func (l *Link) now() time.Duration { return time.Since(l.began) }

// Run moves packets until a device fails.
func (l *Link) Run() error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(timerSlack), 0, 0, 0); err != nil {
		return fmt.Errorf("set timer slack: %w", err)
	}
	polled := []unix.PollFd{{Fd: int32(l.fds[0]), Events: unix.POLLIN}, {Fd: int32(l.fds[1]), Events: unix.POLLIN}}
	for {
		if err := l.move(polled); err != nil {
			return err
		}
		if _, err := unix.Ppoll(polled, l.wait(), nil); err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("poll: %w", err)
		}
	}
}

// move takes in what has come, and passes on what is due.
func (l *Link) move(polled []unix.PollFd) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, p := range polled {
		if p.Revents == 0 {
			continue
		}
		if err := l.take(i); err != nil {
			return err
		}
	}
	for i := range l.ways {
		if err := l.pass(i); err != nil {
			return err
		}
	}
	return nil
}

// take takes a batch in from a device.
func (l *Link) take(i int) error {
	w := l.ways[i]
	for range maxBatch {
		b := w.buffer()
		n, err := unix.Read(l.fds[i], b)
		if err == nil && n > l.header {
			w.put(b[:n], n-l.header, l.now())
			continue
		}
		w.release(b)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return nil
		case err == nil && n == 0:
			return io.EOF
		case err != nil:
			return fmt.Errorf("read: %w", err)
		}
	}
	return nil
}

// pass writes what is due to the other device. What that refuses is lost, as in
// a network card.
func (l *Link) pass(i int) error {
	w, now := l.ways[i], l.now()
	for b := w.next(now); b != nil; b = w.next(now) {
		_, err := unix.Write(l.fds[1-i], b)
		w.release(b)
		switch {
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.ENOBUFS):
			w.counts.Overflow++
		case err != nil:
			return fmt.Errorf("write: %w", err)
		}
	}
	return nil
}

// wait returns how long nothing is due; nil: for ever.
func (l *Link) wait() *unix.Timespec {
	l.mu.Lock()
	defer l.mu.Unlock()
	const never = time.Duration(math.MaxInt64)
	next := never
	for _, w := range l.ways {
		if at, ok := w.due(); ok {
			next = min(next, at)
		}
	}
	if next == never {
		return nil
	}
	left := unix.NsecToTimespec(max(0, int64(next-l.now())))
	return &left
}
