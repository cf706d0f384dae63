package netmap

import "net/netip"

// capPeerDNS is the capability version from which on every node answers DNS over
// peerAPI (SVC-89).
const capPeerDNS = 26

// PeerAPI returns where the HTTP service of p is for us (SVC-85): over IPv4 where
// both have it, else over IPv6. It is not valid when there is none.
func (p *Peer) PeerAPI(us *Peer) netip.AddrPort {
	for _, family := range []struct {
		is4  bool
		port uint16
	}{{true, p.PeerAPI4}, {false, p.PeerAPI6}} {
		theirs := p.addrOf(family.is4)
		if family.port != 0 && theirs.IsValid() && us.addrOf(family.is4).IsValid() {
			return netip.AddrPortFrom(theirs, family.port)
		}
	}
	return netip.AddrPort{}
}

// AnswersDNS reports whether p answers DNS over peerAPI for those who may ask
// (SVC-89).
func (p *Peer) AnswersDNS() bool { return p.PeerAPIDNS || p.Cap >= capPeerDNS }

// addrOf returns the node's first own address of a family; not valid for none.
func (p *Peer) addrOf(is4 bool) netip.Addr {
	for _, a := range p.Addresses {
		if a.IsSingleIP() && a.Addr().Is4() == is4 {
			return a.Addr()
		}
	}
	return netip.Addr{}
}
