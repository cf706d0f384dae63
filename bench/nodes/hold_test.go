package main

import (
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// TestHold: streams stand still for a while, again and again, and not in
// between.
func TestHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		defer there.Close()
		c := heldConn{here, time.Now()}
		defer c.Close()
		go func() {
			for b := make([]byte, 1); ; {
				if _, err := there.Read(b); err != nil {
					return
				}
			}
		}()
		for _, step := range []struct{ after, took time.Duration }{
			{0, holdFor}, {0, 0}, {holdEvery - holdFor, holdFor}, {time.Second, 0}, {holdEvery - holdFor - time.Second + holdFor/3, holdFor * 2 / 3},
		} {
			time.Sleep(step.after) // fake time
			began := time.Now()
			if _, err := c.Write([]byte{1}); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(began); took != step.took {
				t.Errorf("at %v: took %v, want %v", began.Sub(c.began), took, step.took)
			}
		}
	})
}
