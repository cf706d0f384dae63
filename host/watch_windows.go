package host

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"unsafe"

	"golang.org/x/sys/windows"
)

// A listener is one Watch. Windows knows it by its address.
type listener struct{ heard chan struct{} }

// listeners are those that Windows may call. All share one callback: a process
// has few and they are never given back.
var listeners struct {
	mu sync.Mutex
	at map[uintptr]*listener
}

// onChange is called on a thread of Windows with the address of a listener.
var onChange = sync.OnceValue(func() uintptr {
	return windows.NewCallback(func(key, _ uintptr, _ uint32) uintptr {
		listeners.mu.Lock()
		defer listeners.mu.Unlock()
		if l := listeners.at[key]; l != nil {
			select {
			case l.heard <- struct{}{}:
			default: // one is waiting already
			}
		}
		return 0
	})
})

func addListener() *listener {
	listeners.mu.Lock()
	defer listeners.mu.Unlock()
	l := &listener{heard: make(chan struct{}, 1)}
	if listeners.at == nil {
		listeners.at = make(map[uintptr]*listener)
	}
	listeners.at[l.key()] = l
	return l
}

func (l *listener) key() uintptr { return uintptr(unsafe.Pointer(l)) }

func (l *listener) remove() {
	listeners.mu.Lock()
	defer listeners.mu.Unlock()
	delete(listeners.at, l.key())
}

// Watch asks to be told of changes of addresses, interfaces and routes. It
// calls changed for the first time when it begins to listen: what happened
// before goes unheard.
func (OS) Watch(ctx context.Context, changed func()) error {
	l := addListener()
	defer l.remove()
	stop, err := l.ask()
	if err != nil {
		return fmt.Errorf("host: watch for changes: %w: %w", errors.ErrUnsupported, err)
	}
	defer stop()
	changed()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-l.heard:
			changed()
		}
	}
}

// ask has Windows call onChange for l until stop, which waits for calls under
// way.
func (l *listener) ask() (stop func(), err error) {
	type notify func(family uint16, callback uintptr, context unsafe.Pointer, initial bool, h *windows.Handle) error
	var handles []windows.Handle
	stop = func() {
		for _, h := range handles {
			windows.CancelMibChangeNotify2(h)
		}
	}
	for _, f := range []notify{windows.NotifyUnicastIpAddressChange, windows.NotifyIpInterfaceChange, windows.NotifyRouteChange2} {
		var h windows.Handle
		if err := f(windows.AF_UNSPEC, onChange(), unsafe.Pointer(l), false, &h); err != nil {
			stop()
			return nil, err
		}
		handles = append(handles, h)
	}
	return stop, nil
}
