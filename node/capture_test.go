package node_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/seed94491740/tsnode/devnet"
	"github.com/seed94491740/tsnode/node"
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

// A connection for which nobody listens goes to the handler that wants it, who
// knows whose it is; without one it is refused.
func TestFallbackTCPHandler(t *testing.T) {
	tailnet := startDevnet(t, devnet.Config{})
	web, me := newNode(t, tailnet, "web"), newNode(t, tailnet, "me")
	who, first := make(chan string, 1), make(chan [2]netip.AddrPort, 1)
	forget := web.RegisterFallbackTCPHandler(func(src, dst netip.AddrPort) (func(net.Conn), bool) {
		select {
		case first <- [2]netip.AddrPort{src, dst}:
		default:
		}
		switch dst.Port() {
		case 81:
			return nil, true // refused
		case 82:
			return nil, false
		}
		return func(c net.Conn) {
			defer c.Close()
			w, err := web.WhoIsConn(c)
			if err != nil {
				who <- err.Error()
				return
			}
			fmt.Fprint(c, "hello from nowhere")
			who <- w.Node.Name
		}, true
	})
	up(t, web)
	up(t, me)
	serveEcho(t, web, 7)
	c, err := me.Dial(within(t, patience), "tcp", "web:80")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got, err := io.ReadAll(c); err != nil || string(got) != "hello from nowhere" {
		t.Errorf("got %q, %v", got, err)
	}
	mine, _ := me.TailscaleIPs()
	theirs, _ := web.TailscaleIPs()
	asked := <-first
	if name := <-who; name != "me.tailnet.test" || asked[0].Addr() != mine || asked[1] != netip.AddrPortFrom(theirs, 80) {
		t.Errorf("from %s, asked for %v", name, asked)
	}
	for _, address := range []string{"web:81", "web:82"} {
		if _, err := me.Dial(within(t, patience), "tcp", address); !errors.Is(err, node.ErrRefused) {
			t.Errorf("%s: %v", address, err)
		}
	}
	echo, err := me.Dial(within(t, patience), "tcp", "web:7")
	if err != nil {
		t.Fatalf("a port with a listener: %v", err)
	}
	echo.Close()
	forget()
	if _, err := me.Dial(within(t, patience), "tcp", "web:80"); !errors.Is(err, node.ErrRefused) {
		t.Errorf("after it was deregistered: %v", err)
	}
}

// The node closes whatever a handler does, and a handler that panics ends its
// connection alone.
func TestFallbackHandlerIsNotAwaited(t *testing.T) {
	tailnet := startDevnet(t, devnet.Config{})
	web, me := newNode(t, tailnet, "web"), newNode(t, tailnet, "me")
	began, stay := make(chan struct{}), make(chan struct{})
	defer close(stay)
	web.RegisterFallbackTCPHandler(func(_, dst netip.AddrPort) (func(net.Conn), bool) {
		if dst.Port() == 81 {
			return func(net.Conn) { panic("alas") }, true
		}
		return func(net.Conn) { close(began); <-stay }, true
	})
	up(t, web)
	up(t, me)
	sees(t, me, "web")
	ended, err := me.Dial(within(t, patience), "tcp", "web:81")
	if err != nil {
		t.Fatal(err)
	}
	defer ended.Close()
	io.ReadAll(ended) // returns
	c, err := me.Dial(within(t, patience), "tcp", "web:80")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	<-began
	web.Close()
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
