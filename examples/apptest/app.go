// Package apptest shows how an application that lives on a tailnet is tested
// without an account and without a network: see app_test.go.
package apptest

import (
	"bufio"
	"fmt"
	"net"
	"sync/atomic"
)

// A Counter counts the lines that its clients send, and answers each with the
// number so far. It knows nothing of tailnets: it takes a listener.
type Counter struct{ lines atomic.Int64 }

// Serve answers connections until ln is closed.
func (c *Counter) Serve(ln net.Listener) error {
	for {
		conn, err := ln.Accept()
		if err != nil {
			return err
		}
		go c.serve(conn)
	}
}

func (c *Counter) serve(conn net.Conn) {
	defer conn.Close()
	for s := bufio.NewScanner(conn); s.Scan(); {
		fmt.Fprintln(conn, c.lines.Add(1))
	}
}
