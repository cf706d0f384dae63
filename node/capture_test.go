package node_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/seed94491740/tsnode/devnet"
)

// A block is one of a pcapng file.
type block struct {
	kind uint32
	body []byte
}

// blocks reads a capture as the draft of pcapng says.
func blocks(t *testing.T, b []byte) (all []block) {
	t.Helper()
	for len(b) > 0 {
		if len(b) < 12 {
			t.Fatalf("%d bytes at the end", len(b))
		}
		length := binary.LittleEndian.Uint32(b[4:])
		if int(length) > len(b) || binary.LittleEndian.Uint32(b[length-4:]) != length {
			t.Fatalf("block of %d bytes in %d", length, len(b))
		}
		all = append(all, block{binary.LittleEndian.Uint32(b), b[8 : length-4]})
		b = b[length:]
	}
	return all
}

// packets returns those of a capture that have a text, by direction: 1 in, 2 out.
func packets(t *testing.T, b []byte, text string) (found map[uint32]int) {
	t.Helper()
	found = make(map[uint32]int)
	for _, bl := range blocks(t, b) {
		if bl.kind != 6 || !bytes.Contains(bl.body, []byte(text)) {
			continue
		}
		length := int(binary.LittleEndian.Uint32(bl.body[12:]))
		option := bl.body[20+(length+3)&^3:]
		found[binary.LittleEndian.Uint32(option[4:])]++
	}
	return found
}

// A capture shows what goes both ways in the clear, and says at its end that
// nothing is missing; when it is over, the packet path knows of no capture.
func TestCapture(t *testing.T) {
	tailnet := startDevnet(t, devnet.Config{})
	web, me := newNode(t, tailnet, "web"), newNode(t, tailnet, "me")
	up(t, web)
	up(t, me)
	serveEcho(t, web, 7)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	file := filepath.Join(t.TempDir(), "x.pcapng")
	if err := me.CapturePcap(ctx, file); err != nil {
		t.Fatal(err)
	}
	var direct bytes.Buffer
	var mu sync.Mutex
	done := make(chan error, 1)
	started := make(chan struct{}, 1)
	go func() { done <- me.Capture(ctx, notingWriter{&mu, &direct, started}) }()
	<-started
	c, err := me.Dial(within(t, patience), "tcp", "web:7")
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(c, "in the clear")
	c.(interface{ CloseWrite() error }).CloseWrite()
	if got, err := io.ReadAll(c); err != nil || string(got) != "in the clear" {
		t.Fatalf("got %q, %v", got, err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	me.Close() // the file is complete then
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for name, capture := range map[string][]byte{"CapturePcap": b, "Capture": direct.Bytes()} {
		if got := packets(t, capture, "in the clear"); got[1] == 0 || got[2] == 0 {
			t.Errorf("%s: packets by direction %v", name, got)
		}
		all := blocks(t, capture)
		last := all[len(all)-1]
		if last.kind != 5 || binary.LittleEndian.Uint64(last.body[16:]) != 0 {
			t.Errorf("%s: last block %+v", name, last)
		}
	}
}

// notingWriter says when the first bytes come.
type notingWriter struct {
	mu      *sync.Mutex
	w       io.Writer
	started chan struct{}
}

func (n notingWriter) Write(b []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	select {
	case n.started <- struct{}{}:
	default:
	}
	return n.w.Write(b)
}

// dialSOCKS connects through a SOCKS5 proxy (RFC 1928, RFC 1929).
func dialSOCKS(t *testing.T, proxy, user, password, host string, port uint16) (net.Conn, error) {
	t.Helper()
	c, err := net.Dial("tcp", proxy)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { c.Close() })
	answer := make([]byte, 10)
	c.Write([]byte{5, 1, 2})
	if _, err := io.ReadFull(c, answer[:2]); err != nil {
		return nil, err
	}
	login := append([]byte{1, byte(len(user))}, user...)
	c.Write(append(append(login, byte(len(password))), password...))
	if _, err := io.ReadFull(c, answer[:2]); err != nil || answer[1] != 0 {
		return nil, fmt.Errorf("login: %d, %w", answer[1], errors.Join(err, io.ErrUnexpectedEOF))
	}
	request := append([]byte{5, 1, 0, 3, byte(len(host))}, host...)
	c.Write(binary.BigEndian.AppendUint16(request, port))
	if _, err := io.ReadFull(c, answer); err != nil || answer[1] != 0 {
		return nil, fmt.Errorf("reply %d, %w", answer[1], errors.Join(err, io.ErrUnexpectedEOF))
	}
	return c, nil
}
