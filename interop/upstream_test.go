package interop

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// listenDNS listens by UDP and TCP at one port of loopback. The system chooses a
// port that UDP has free; where TCP has not, it is another one's turn.
func listenDNS(t *testing.T) (pc net.PacketConn, ln net.Listener) {
	t.Helper()
	for range 100 {
		pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { pc.Close() })
		switch ln, err := net.Listen("tcp4", pc.LocalAddr().String()); {
		case err == nil:
			t.Cleanup(func() { ln.Close() })
			return pc, ln
		case !errors.Is(err, syscall.EADDRINUSE):
			t.Fatal(err)
		}
	}
	t.Fatal("no port is free for both")
	return nil, nil
}

// answerDatagrams answers what comes as upstreamAnswer does, until pc is closed.
func answerDatagrams(pc net.PacketConn, addr string) {
	buf := make([]byte, 4096)
	for {
		n, from, err := pc.ReadFrom(buf)
		if err != nil {
			return
		}
		pc.WriteTo(upstreamAnswer(buf[:n], addr), from)
	}
}

// upstreamDNS runs a DNS server that answers by the first label, and returns where.
func upstreamDNS(t *testing.T, addr string) string {
	t.Helper()
	pc, ln := listenDNS(t)
	go answerDatagrams(pc, addr)
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				var length [2]byte
				if _, err := io.ReadFull(c, length[:]); err != nil {
					return
				}
				q := make([]byte, binary.BigEndian.Uint16(length[:]))
				if _, err := io.ReadFull(c, q); err != nil {
					return
				}
				answer := upstreamAnswer(q, addr)
				c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...))
			}()
		}
	}()
	return pc.LocalAddr().String()
}

// upstreamAnswer answers with an address, as often as the first label says, or
// with the failure that it names.
func upstreamAnswer(question []byte, addr string) []byte {
	var m dnsmessage.Message
	if m.Unpack(question) != nil || len(m.Questions) != 1 {
		return nil
	}
	q := m.Questions[0]
	m.Response, m.RecursionAvailable = true, true
	first, _, _ := strings.Cut(strings.ToLower(q.Name.String()), ".")
	n := 1
	switch first {
	case "missing":
		m.RCode, n = dnsmessage.RCodeNameError, 0
	case "failing":
		m.RCode, n = dnsmessage.RCodeServerFailure, 0
	case "refusing":
		m.RCode, n = dnsmessage.RCodeRefused, 0
	case "empty":
		n = 0
	default:
		fmt.Sscanf(first, "%d", &n)
	}
	for range n {
		m.Answers = append(m.Answers, dnsmessage.Resource{
			Header: dnsmessage.ResourceHeader{Name: q.Name, Type: dnsmessage.TypeA, Class: q.Class, TTL: 60},
			Body:   &dnsmessage.AResource{A: netip.MustParseAddr(addr).As4()},
		})
	}
	answer, err := m.Pack()
	if err != nil {
		return nil
	}
	return answer
}
