package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"runtime"
	"runtime/pprof"
	"time"

	"github.com/seed94491740/tsnode/bench/internal/derper"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/transport/derp/relay"
)

// roleOptions are the flags of a process that this program has started.
type roleOptions struct {
	role        string // relay; empty: the program itself
	addr, certs string // where it listens, and the folder of its certificate
	profile     string // file for its CPU profile
}

// runRelay is our relay, until standard input ends.
func runRelay(ctx context.Context, o roleOptions) error {
	cert, err := tls.LoadX509KeyPair(derper.Files(o.certs, relayHost))
	if err != nil {
		return err
	}
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", o.addr)
	if err != nil {
		return err
	}
	s := relay.New(key.NewNode(), relay.Options{})
	web := &http.Server{
		Handler: s.Handler(), TLSConfig: s.TLSConfig(cert),
		ReadTimeout: 30 * time.Second, WriteTimeout: 30 * time.Second,
		ErrorLog: log.New(io.Discard, "", 0),
	}
	go func() {
		io.Copy(io.Discard, os.Stdin)
		if o.profile != "" {
			writeHeap(o.profile+".heap", s)
		}
		web.Close()
		s.Close()
	}()
	if err := web.ServeTLS(ln, "", ""); err != http.ErrServerClosed {
		return err
	}
	return s.Close()
}

// writeHeap writes what lives on the heap to a file, and shows the memory in use
// and what the relay has counted.
func writeHeap(file string, s *relay.Server) {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	fmt.Fprintf(os.Stderr, "relay: heap %d MB in use, %d MB idle, %d MB released, stacks %d MB, %d goroutines, %d collections; %+v\n",
		m.HeapInuse>>20, m.HeapIdle>>20, m.HeapReleased>>20, m.StackInuse>>20, runtime.NumGoroutine(), m.NumGC, s.Stats())
	out, err := os.Create(file)
	if err == nil {
		runtime.GC() // the profile is as of the last collection
		err = errors.Join(pprof.WriteHeapProfile(out), out.Close())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "relay: heap profile:", err)
	}
	runtime.ReadMemStats(&m)
	fmt.Fprintf(os.Stderr, "relay: after a collection: heap %d MB live, stacks %d MB\n", m.HeapAlloc>>20, m.StackInuse>>20)
}
