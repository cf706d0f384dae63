package host

import (
	"fmt"
	"os"
	"sync"
	"syscall"
)

// A fallback is a fast path of UDP that the host refuses.
type fallback uint8

const (
	noBatches fallback = iota
	noSegmentation
	noCoalescing
	allFallbacks // how many there are
)

// String says what is refused and what is done instead.
func (f fallback) String() string {
	switch f {
	case noBatches:
		return "batches of messages: one system call for each message"
	case noSegmentation:
		return "UDP_SEGMENT: one message for each outgoing datagram"
	case noCoalescing:
		return "UDP_GRO: one message for each incoming datagram"
	}
	return fmt.Sprintf("fallback %d", uint8(f))
}

// fallbacks are those that a socket has taken. They are few and for good, so
// the lock is not taken on the packet path.
type fallbacks struct {
	mu     sync.Mutex
	texts  [allFallbacks]string // empty where there is none
	report func(refused string)
}

// add notes that the host refused f with err. Only the first time counts.
func (b *fallbacks) add(f fallback, err error) {
	b.mu.Lock()
	known := b.texts[f] != ""
	if !known {
		b.texts[f] = fmt.Sprintf("%v (%v)", f, err)
	}
	text, report := b.texts[f], b.report
	b.mu.Unlock()
	if !known && report != nil {
		report(text)
	}
}

// tell has report called for each fallback, those that are known included.
func (b *fallbacks) tell(report func(refused string)) {
	b.mu.Lock()
	b.report = report
	texts := b.texts
	b.mu.Unlock()
	for _, text := range texts {
		if text != "" {
			report(text)
		}
	}
}

// singly goes on with one message per system call: the sandbox that refuses one
// of the batch calls has a filter older than both.
func (u *batchUDP) singly(call string, e syscall.Errno) {
	u.single.Store(true)
	u.fallbacks.add(noBatches, os.NewSyscallError(call, e))
}
