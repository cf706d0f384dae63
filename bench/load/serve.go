package load

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"strconv"
)

// Ports of the services.
const (
	bulkPort   = 5201 // TCP: takes or sends a stream
	echoPort   = 5202 // TCP: sends back what it gets
	leavePort  = 5203 // TCP: sends back one byte, and closes
	packetPort = 5204 // UDP: counts
)

const (
	writeSize = 128 << 10 // bytes written at once
	readSize  = 256 << 10 // bytes read at once
)

// serve starts all services, which run until the process ends.
func (a *agent) serve(context.Context, Nothing) (Nothing, error) {
	n, err := a.first()
	if err != nil {
		return Nothing{}, err
	}
	for port, handle := range map[int]func(net.Conn){bulkPort: handleBulk, echoPort: handleEcho, leavePort: handleLeave} {
		ln, err := n.Listen("tcp", ":"+strconv.Itoa(port))
		if err != nil {
			return Nothing{}, err
		}
		go accept(ln, handle)
	}
	pc, err := n.ListenPacket("udp", netip.AddrPortFrom(a.ip, packetPort).String())
	if err == nil {
		go a.arrived.count(pc)
	}
	return Nothing{}, err
}

func accept(ln net.Listener, handle func(net.Conn)) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			handle(c)
		}()
	}
}

// handleBulk takes a stream and says how long it was, or sends one, as its head
// demands. The other end closes first.
func handleBulk(c net.Conn) {
	var h bulkHead
	if err := binary.Read(c, binary.BigEndian, &h); err != nil {
		return
	}
	if h.Send {
		if h.send(c) == nil {
			c.Read(make([]byte, 1))
		}
		return
	}
	t, err := h.receive(c)
	if err != nil {
		return
	}
	binary.Write(c, binary.BigEndian, t)
	io.CopyBuffer(io.Discard, struct{ io.Reader }{c}, make([]byte, readSize))
}

func handleEcho(c net.Conn) { io.Copy(c, struct{ io.Reader }{c}) }

func handleLeave(c net.Conn) {
	b := make([]byte, 1)
	if _, err := c.Read(b); err == nil {
		c.Write(b)
	}
}
