package vpn

import (
	"bufio"
	"io"
	"net"
	"os"
	"testing"
)

// streams returns two ends of a stream in memory. A write waits for its read, and
// each direction closes on its own.
func streams() (a, b Stream) {
	r1, w1 := io.Pipe()
	r2, w2 := io.Pipe()
	return Pair(r1, w2), Pair(r2, w1)
}

// kinds are the streams that exist: in memory without a buffer, two pipes as front
// ends use them, and a connection of which each direction closes on its own.
var kinds = map[string]func(t *testing.T) (a, b Stream){
	"memory": func(*testing.T) (a, b Stream) { return streams() },
	"net.Pipe": func(*testing.T) (Stream, Stream) {
		a, b := net.Pipe()
		return Pair(a, a), Pair(b, b)
	},
	"pipes": func(t *testing.T) (Stream, Stream) {
		r1, w1 := osPipe(t)
		r2, w2 := osPipe(t)
		return Pair(r1, w2), Pair(r2, w1)
	},
	"socket": connected,
}

func osPipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	return r, w
}

// connected returns both ends of a connection over loopback.
func connected(t *testing.T) (a, b Stream) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	out, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	in, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return out.(*net.TCPConn), in.(*net.TCPConn)
}

// buffered is what handshake and frames of a stream are read through.
func buffered(s Stream) *bufio.Reader { return bufio.NewReaderSize(s, readBuffer) }
