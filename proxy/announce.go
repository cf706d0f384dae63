package proxy

import (
	"bufio"
	"fmt"
	"net"
	"time"

	"github.com/pires/go-proxyproto"
)

// headerTimeout is how long a client may take for the header of the PROXY protocol
// that a forward expects of it.
const headerTimeout = 5 * time.Second

// An announcement says whom a connection is made for.
type announcement struct {
	from, to net.Addr
	rest     []byte // of the client's data, what was read with its header
}

// announced returns what the PROXY header of a client says, if it is to have one,
// else who the client is.
func (f *Forward) announced(c net.Conn) (announcement, error) {
	a := announcement{from: c.RemoteAddr(), to: c.LocalAddr()}
	if !f.options.AcceptProxy {
		return a, nil
	}
	c.SetReadDeadline(time.Now().Add(headerTimeout))
	r := bufio.NewReader(c)
	h, err := proxyproto.Read(r)
	if err != nil {
		return a, fmt.Errorf("no PROXY header: %w: have the client send one, or leave out accept-proxy", err)
	}
	c.SetReadDeadline(time.Time{})
	if h.SourceAddr != nil && h.Command.IsProxy() {
		a.from, a.to = h.SourceAddr, h.DestinationAddr
	} // else the client speaks for itself
	a.rest, err = r.Peek(r.Buffered())
	return a, err
}

// introduce sends the target the PROXY header that it expects, and what the client
// has sent so far.
func (f *Forward) introduce(target net.Conn, a announcement) error {
	var b []byte
	if f.options.SendProxy != 0 {
		var err error
		if b, err = proxyHeader(f.options.SendProxy, a.from, a.to); err != nil {
			return fmt.Errorf("PROXY header: %w", err)
		}
	}
	if b = append(b, a.rest...); len(b) == 0 {
		return nil
	}
	f.traffic.In.Add(uint64(len(a.rest)))
	_, err := target.Write(b)
	return err
}

// proxyHeader returns a header of the PROXY protocol. Of a connection without IP
// addresses, as over a unix socket, it says that the proxy speaks for itself.
func proxyHeader(version int, from, to net.Addr) ([]byte, error) {
	from, to = tcpAddr(from), tcpAddr(to)
	h := proxyproto.HeaderProxyFromAddrs(byte(version), from, to)
	return h.Format()
}

// tcpAddr returns an address of TCP as it is, and nil for others.
func tcpAddr(a net.Addr) net.Addr {
	if t, ok := a.(*net.TCPAddr); ok {
		return t
	}
	return nil
}
