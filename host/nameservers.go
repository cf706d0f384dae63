package host

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"runtime"
	"strings"
)

const (
	maxNameservers = 3        // resolv.conf(5): MAXNS
	maxResolvConf  = 64 << 10 // bytes of the file that are read

	nameserverPort = 53
)

// Nameservers returns the DNS servers that the host of a network asks, three at
// most. The error is errors.ErrUnsupported where the network does not tell.
func Nameservers(n Network) ([]netip.AddrPort, error) {
	if n, ok := n.(interface {
		Nameservers() ([]netip.AddrPort, error)
	}); ok {
		return n.Nameservers()
	}
	return nil, fmt.Errorf("host: nameservers: %w", errors.ErrUnsupported)
}

// Nameservers is for the function of that name. On Windows, Apple's systems and
// Android no file tells: what is in theirs, if they have one, is not what they ask.
func (OS) Nameservers() ([]netip.AddrPort, error) {
	switch runtime.GOOS {
	case "windows", "darwin", "ios", "android":
		return nil, fmt.Errorf("host: nameservers: %w", errors.ErrUnsupported)
	}
	f, err := os.Open("/etc/resolv.conf")
	if err != nil {
		return nil, fmt.Errorf("host: nameservers: %w", err)
	}
	defer f.Close()
	return parseResolvConf(io.LimitReader(f, maxResolvConf)), nil
}

// parseResolvConf returns the servers of a resolv.conf(5). One with a zone is left
// out: it is reached by one interface only.
func parseResolvConf(r io.Reader) (servers []netip.AddrPort) {
	lines := bufio.NewScanner(r)
	for lines.Scan() && len(servers) < maxNameservers {
		words := strings.Fields(lines.Text())
		if len(words) < 2 || words[0] != "nameserver" {
			continue
		}
		if a, err := netip.ParseAddr(words[1]); err == nil && a.Zone() == "" {
			servers = append(servers, netip.AddrPortFrom(a.Unmap(), nameserverPort))
		}
	}
	return servers
}
