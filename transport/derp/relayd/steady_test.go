package relayd

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed94491740/tsnode/host"
)

// A failingListener cannot accept anything.
type failingListener struct {
	net.Listener
	why   error
	calls atomic.Int64
}

func (l *failingListener) Accept() (net.Conn, error) {
	l.calls.Add(1)
	return nil, &net.OpError{Op: "accept", Net: "tcp", Err: os.NewSyscallError("accept4", l.why)}
}

// TestAcceptGoesOn: a system without free descriptors or memory does not end the
// relay, does not make it spin, and is in the log; a listener that is broken
// ends it.
func TestAcceptGoesOn(t *testing.T) {
	for _, c := range []struct {
		why  error
		ends bool
	}{
		{syscall.EMFILE, false}, {syscall.ENFILE, false}, {syscall.ENOBUFS, false}, {syscall.ENOMEM, false},
		{syscall.EPROTO, false}, {syscall.EHOSTUNREACH, false}, {syscall.EBADF, true},
	} {
		t.Run(c.why.Error(), func(t *testing.T) {
			real, err := host.OS{}.ListenTCP(t.Context(), "127.0.0.1:0", host.TCPOptions{})
			if err != nil {
				t.Fatal(err)
			}
			defer real.Close()
			synctest.Test(t, func(t *testing.T) {
				var logged logBuffer
				failing := &failingListener{Listener: real, why: c.why}
				web := &webServer{steadyListener{failing}, &http.Server{
					ErrorLog: errorLog(slog.New(slog.NewTextHandler(&logged, nil))),
				}}
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan error, 1)
				go func() { ended <- web.serve(ctx) }()
				time.Sleep(time.Minute) // fake time
				if n := failing.calls.Load(); !c.ends && (n < 10 || n > 100) {
					t.Errorf("%d attempts in a minute", n)
				}
				cancel()
				web.web.Close()
				time.Sleep(time.Minute) // fake time
				switch err := <-ended; {
				case c.ends && !errors.Is(err, c.why), !c.ends && err != nil:
					t.Errorf("ended with %v", err)
				case !c.ends && !strings.Contains(logged.String(), c.why.Error()):
					t.Errorf("logged %q", logged.String())
				}
			})
		})
	}
}
