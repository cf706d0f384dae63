package host

import (
	"context"
	"errors"
	"os"
	"syscall"
	"testing"
)

// VPN-51: every socket of a network with a mark has it, those that share a port
// and those of accepted connections, too; without one none has.
func TestMark(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	ip(t, "link set lo up")
	if !MayMark() {
		t.Fatal("root of a network may put no marks on its sockets")
	}
	for _, mark := range []uint32{TunnelMark, 0} {
		for what, c := range marks(t, OS{Mark: mark}) {
			raw, err := c.SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			if got, err := markOf(raw); err != nil || got != mark {
				t.Errorf("%s: mark %#x, %v; want %#x", what, got, err, mark)
			}
		}
	}
	if d, err := (OS{Mark: TunnelMark}).Echo(t.Context(), loopbacks(t)[0], []byte("marked")); err != nil || d <= 0 {
		t.Errorf("an echo: %v, %v", d, err)
	}
}

// marks opens sockets of every kind.
func marks(t *testing.T, o OS) map[string]syscall.Conn {
	t.Helper()
	ctx := t.Context()
	ln, err := o.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	dialed, err := o.Dial(ctx, "tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dialed.Close() })
	accepted, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { accepted.Close() })
	udp, err := o.ListenUDP(ctx, "udp4", 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { udp.Close() })
	shared, err := udp.(Sharer).Share(context.WithoutCancel(ctx))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { shared.Close() })
	return map[string]syscall.Conn{
		"Listen": ln.(syscall.Conn), "Dial": dialed.(syscall.Conn), "Accept": accepted.(syscall.Conn),
		"ListenUDP": udp.(*batchUDP).c, "Share": shared.(*batchUDP).c,
	}
}

// Who may put no marks on sockets gets an error, and no socket without one.
func TestMarkRefused(t *testing.T) {
	c, err := OS{Mark: TunnelMark}.ListenUDP(t.Context(), "udp4", 0)
	if MayMark() {
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		return
	}
	if !errors.Is(err, os.ErrPermission) {
		t.Errorf("a socket with a mark, for a user who may not: %v", err)
	}
}
