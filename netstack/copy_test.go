package netstack

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

// Copies to and from a connection carry every byte and end with the stream.
func TestCopies(t *testing.T) {
	a, b := pair(t)
	client, server := connected(t, a, b, b4)
	data := make([]byte, 1<<20+1)
	rand.NewChaCha8([32]byte{}).Read(data)
	wrote := make(chan error, 1)
	go func() {
		n, err := client.ReadFrom(bytes.NewReader(data))
		if err == nil && n != int64(len(data)) {
			err = io.ErrShortWrite
		}
		wrote <- errors.Join(err, client.CloseWrite())
	}()
	var got bytes.Buffer
	if n, err := server.WriteTo(&got); err != nil || n != int64(len(data)) {
		t.Errorf("WriteTo: %d bytes, %v, want all %d", n, err, len(data))
	}
	if err := <-wrote; err != nil {
		t.Errorf("ReadFrom: %v", err)
	}
	if !bytes.Equal(got.Bytes(), data) {
		t.Error("other bytes arrived than were sent")
	}
}

// A copy from a connection ends as Read does: with its deadline, and with Close.
func TestCopyEnds(t *testing.T) {
	for _, tt := range []struct {
		name string
		end  func(*Conn)
		want error
	}{
		{"deadline that has passed", func(c *Conn) { c.SetReadDeadline(time.Unix(1, 0)) }, os.ErrDeadlineExceeded},
		{"Close", func(c *Conn) { c.Close() }, net.ErrClosed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, b := pair(t)
			client, server := connected(t, a, b, b4)
			client.Write([]byte("x"))
			arrived, ended := make(arrival, 1), make(chan error, 1)
			go func() { _, err := server.WriteTo(arrived); ended <- err }()
			<-arrived
			tt.end(server)
			if err := <-ended; !errors.Is(err, tt.want) {
				t.Errorf("WriteTo: %v, want %v", err, tt.want)
			}
		})
	}
}

// An arrival is a writer that tells of each write.
type arrival chan struct{}

func (a arrival) Write(b []byte) (int, error) {
	a <- struct{}{}
	return len(b), nil
}

// A copy from a connection ends with the writer's error, and counts what was
// written.
func TestCopyToBadWriter(t *testing.T) {
	a, b := pair(t)
	client, server := connected(t, a, b, b4)
	client.Write([]byte("hello"))
	if n, err := server.WriteTo(half{}); n != 1 || err != io.ErrShortWrite {
		t.Errorf("WriteTo: %d, %v, want 1, %v", n, err, io.ErrShortWrite)
	}
}

// A half takes one byte of each write, and does not say so.
type half struct{}

func (half) Write([]byte) (int, error) { return 1, nil }

// Copies share buffers: a short one leaves little garbage.
func TestCopiesShareBuffers(t *testing.T) {
	if raceEnabled {
		t.Log("the race detector empties pools at random; only that it runs is tested")
	}
	a, b := pair(t)
	client, _ := connected(t, a, b, b4)
	const copies, each = 1000, copySize / 4
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range copies {
		if _, err := client.ReadFrom(strings.NewReader("x")); err != nil {
			t.Fatal(err)
		}
	}
	runtime.ReadMemStats(&after)
	if got := (after.TotalAlloc - before.TotalAlloc) / copies; got > each && !raceEnabled {
		t.Errorf("%d bytes allocated for a copy, want %d at most", got, each)
	}
}
