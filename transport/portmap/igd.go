package portmap

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"net/url"
	"slices"
	"sort"
	"strconv"
	"time"
)

// A serviceType is the name of a kind of service.
type serviceType string

// services that map ports, in the order of preference (PATH-103).
var serviceTypes = []serviceType{
	wanIP2,
	"urn:schemas-upnp-org:service:WANIPConnection:1",
	"urn:schemas-upnp-org:service:WANPPPConnection:1",
	"urn:dslforum-org:service:WANPPPConnection:1",
	"urn:dslforum-org:service:WANIPConnection:1",
}

// wanIP2 is the only one that chooses a free port itself.
const wanIP2 serviceType = "urn:schemas-upnp-org:service:WANIPConnection:2"

// maxServices bounds the services taken from one description.
const maxServices = 16

// A service of a gateway maps ports.
type service struct {
	kind    serviceType
	control *url.URL // where actions are posted; at the gateway's address
}

// parseDescription returns the services of a description that map ports, best
// first. Their URLs are relative to base or to what the description says, but
// always at base's host.
func parseDescription(r io.Reader, base *url.URL) ([]service, error) {
	var found []service
	var kind serviceType
	var control string
	gateway, err := netip.ParseAddr(base.Hostname())
	if err != nil {
		return nil, fmt.Errorf("UPnP: description from %q: %w", base.Host, err)
	}
	read := func(path []string, text string) {
		switch path[len(path)-1] {
		case "URLBase":
			if u, err := url.Parse(text); err == nil && u.Host != "" {
				base = atGateway(u, gateway)
			}
		case "serviceType":
			kind, control = serviceType(text), ""
		case "controlURL":
			control = text
		}
		if kind == "" || control == "" {
			return
		}
		if u, err := base.Parse(control); err == nil && slices.Contains(serviceTypes, kind) && len(found) < maxServices {
			found = append(found, service{kind, atGateway(u, gateway)})
		}
		kind, control = "", ""
	}
	err = eachText(r, read)
	if len(found) == 0 {
		return nil, errors.Join(errNoService, err)
	}
	sort.SliceStable(found, func(i, j int) bool {
		return slices.Index(serviceTypes, found[i].kind) < slices.Index(serviceTypes, found[j].kind)
	})
	return found, nil
}

var errNoService = errors.New("UPnP: the gateway's description has no service that maps ports")

// choose returns the service to use: a connected one with a public address,
// else one that is connected, else the first (PATH-103).
func (s *soap) choose(ctx context.Context, candidates []service) service {
	best, rank := candidates[0], 0
	if len(candidates) == 1 {
		return best
	}
	for _, c := range candidates {
		r := s.rank(ctx, c)
		if r > rank {
			best, rank = c, r
		}
		if rank == 3 {
			break
		}
	}
	return best
}

func (s *soap) rank(ctx context.Context, c service) int {
	status, err := s.call(ctx, c, "GetStatusInfo")
	if err != nil || (status["NewConnectionStatus"] != "Connected" && status["NewConnectionStatus"] != "Up") {
		return 0
	}
	ip, err := s.publicAddress(ctx, c)
	switch {
	case err != nil:
		return 1
	case ip.IsPrivate():
		return 2
	}
	return 3
}

// publicAddress asks for the address of the gateway.
func (s *soap) publicAddress(ctx context.Context, c service) (netip.Addr, error) {
	values, err := s.call(ctx, c, "GetExternalIPAddress")
	if err != nil {
		return netip.Addr{}, err
	}
	ip, err := netip.ParseAddr(values["NewExternalIPAddress"])
	if err != nil {
		return netip.Addr{}, fmt.Errorf("UPnP: GetExternalIPAddress: %w", err)
	}
	if ip = ip.Unmap(); !usablePublic(ip) {
		return netip.Addr{}, fmt.Errorf("UPnP: %w: it says %v", errNoPublicAddress, ip)
	}
	return ip, nil
}

// A portQuery asks for a UDP port of the gateway.
type portQuery struct {
	client   netip.Addr // of this host
	internal uint16
	wanted   uint16 // 0 chooses one at random: for the gateway it would mean every port
	lifetime time.Duration
}

// maxPortTries is how many ports are tried that other hosts turn out to have.
const maxPortTries = 4

// mapPort adds or renews a mapping and returns its port. A gateway that grants
// only for ever is asked for that; the caller renews it like any other.
func (s *soap) mapPort(ctx context.Context, c service, q portQuery) (port uint16, err error) {
	lease := q.lifetime
	if q.wanted == 0 {
		q.wanted = randomPort()
	}
	for tries := 1; ; tries++ {
		port, err = s.addMapping(ctx, c, q, lease)
		f, refused := errors.AsType[fault](err)
		if !refused || tries == maxPortTries {
			return port, err
		}
		switch {
		case (f.code == faultInvalidArgs || f.code == faultOnlyPermanent) && lease != 0:
			lease = 0
		case f.code == faultConflict:
			q.wanted = randomPort()
		case f.code == faultSamePort && q.wanted != q.internal:
			q.wanted = q.internal
		default:
			return 0, err
		}
	}
}

// randomPort returns a port from 1024.
func randomPort() uint16 { return uint16(1024 + rand.IntN(1<<16-1024)) }

func (s *soap) addMapping(ctx context.Context, c service, q portQuery, lease time.Duration) (uint16, error) {
	action := "AddPortMapping"
	if c.kind == wanIP2 {
		action = "AddAnyPortMapping"
	}
	values, err := s.call(ctx, c, action,
		argument{"NewRemoteHost", ""},
		argument{"NewExternalPort", strconv.Itoa(int(q.wanted))},
		argument{"NewProtocol", "UDP"},
		argument{"NewInternalPort", strconv.Itoa(int(q.internal))},
		argument{"NewInternalClient", q.client.String()},
		argument{"NewEnabled", "1"},
		argument{"NewPortMappingDescription", "tsnode"},
		argument{"NewLeaseDuration", strconv.Itoa(int(lease.Seconds()))},
	)
	if err != nil || c.kind != wanIP2 {
		return q.wanted, err
	}
	port, err := strconv.ParseUint(values["NewReservedPort"], 10, 16)
	if err != nil || port == 0 {
		return 0, fmt.Errorf("UPnP: AddAnyPortMapping: reserved port %q", values["NewReservedPort"])
	}
	return uint16(port), nil
}

// unmapPort deletes a mapping.
func (s *soap) unmapPort(ctx context.Context, c service, external uint16) error {
	_, err := s.call(ctx, c, "DeletePortMapping",
		argument{"NewRemoteHost", ""},
		argument{"NewExternalPort", strconv.Itoa(int(external))},
		argument{"NewProtocol", "UDP"},
	)
	return err
}
