package localapi

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/seed94491740/tsnode/netmap"
)

// status answers with a Status (SVC-128); peers=false leaves the peers out.
func (s *Server) status(w http.ResponseWriter, r *http.Request) {
	peers := true
	if text := r.FormValue("peers"); text != "" {
		var err error
		if peers, err = strconv.ParseBool(text); err != nil {
			http.Error(w, "peers: want true or false", http.StatusBadRequest)
			return
		}
	}
	writeJSON(w, s.builder().status(s.config.Version, peers))
}

func (s *Server) builder() *statusBuilder {
	return &statusBuilder{Snapshot: s.config.Node.Snapshot(), traffic: s.config.Node.Traffic, now: time.Now()}
}

// withNetmap calls f with the network map, or answers that there is none.
func (s *Server) withNetmap(w http.ResponseWriter, f func(*netmap.Netmap)) {
	nm := s.config.Node.Snapshot().Netmap
	if nm == nil {
		netmapError(w)
		return
	}
	f(nm)
}

// whoIs answers with a WhoIs (SVC-117, SVC-118).
func (s *Server) whoIs(w http.ResponseWriter, r *http.Request) {
	addr := r.FormValue("addr")
	if addr == "" {
		http.Error(w, "missing 'addr' parameter", http.StatusBadRequest)
		return
	}
	var dst netip.Addr
	if text := r.FormValue("dst_ip"); text != "" {
		var err error
		if dst, err = netip.ParseAddr(text); err != nil {
			http.Error(w, "dst_ip: "+err.Error(), http.StatusBadRequest)
			return
		}
	}
	who, err := s.config.Node.WhoIs(r.Context(), addr, dst)
	if err != nil {
		http.Error(w, err.Error(), statusOf(err))
		return
	}
	writeJSON(w, &WhoIs{Node: infoOf(who.Node), UserProfile: &who.User, CapMap: who.Caps})
}

// peerByID answers with the node that has an ID.
func (s *Server) peerByID(w http.ResponseWriter, r *http.Request) {
	s.withNetmap(w, func(nm *netmap.Netmap) {
		id, err := strconv.ParseInt(r.FormValue("id"), 10, 64)
		if err != nil {
			http.Error(w, "id: want a number", http.StatusBadRequest)
			return
		}
		p, ok := nm.PeerByID(netmap.NodeID(id))
		if !ok {
			http.Error(w, "no peer has this ID", http.StatusNotFound)
			return
		}
		writeJSON(w, infoOf(p))
	})
}

// userProfile answers with the user who has an ID.
func (s *Server) userProfile(w http.ResponseWriter, r *http.Request) {
	s.withNetmap(w, func(nm *netmap.Netmap) {
		id, err := strconv.ParseInt(r.FormValue("id"), 10, 64)
		if err != nil {
			http.Error(w, "id: want a number", http.StatusBadRequest)
			return
		}
		u, ok := nm.Users[netmap.UserID(id)]
		if !ok {
			http.Error(w, "no user has this ID", http.StatusNotFound)
			return
		}
		writeJSON(w, u)
	})
}

// derpMap answers with the relays of the tailnet.
func (s *Server) derpMap(w http.ResponseWriter, _ *http.Request) {
	s.withNetmap(w, func(nm *netmap.Netmap) {
		if nm.DERP == nil {
			writeJSON(w, netmap.DERPMap{})
			return
		}
		writeJSON(w, nm.DERP)
	})
}

// serveConfig answers with the configuration of serve, which is empty.
func (s *Server) serveConfig(w http.ResponseWriter, _ *http.Request) {
	const empty = "{}"
	sum := sha256.Sum256([]byte(empty)) // SVC-97
	w.Header().Set("Etag", hex.EncodeToString(sum[:]))
	w.Header().Set("Content-Type", "application/json")
	io.WriteString(w, empty)
}

// A featureAnswer is that of query-feature.
type featureAnswer struct {
	Complete   bool   `json:",omitempty"`
	Text       string `json:",omitempty"`
	URL        string `json:",omitempty"`
	ShouldWait bool   `json:",omitempty"`
}

// A soMark says whether the sockets of the node are told from others by a mark:
// in userspace no packet comes back to the node, so all is as if.
type soMark struct {
	UseSOMark bool `json:"useSoMark"`
}

// A warning tells what of the host's kernel stands in the way: nothing, as
// forwarding is done in userspace.
type warning struct{ Warning string }

// A LoginProfile is one of the logins that a node can change between: there is
// one.
type LoginProfile struct {
	ID             string
	Name           string
	NetworkProfile struct{ MagicDNSName, DomainName, DisplayName string }
	Key            string
	UserProfile    netmap.UserProfile
	NodeID         netmap.StableID
	LocalUserID    string
	ControlURL     string
}

// profileID names the one profile.
const profileID = "0000"

// profiles answers with the one profile.
func (s *Server) profiles(w http.ResponseWriter, r *http.Request) {
	p := s.profile()
	switch id := strings.TrimPrefix(r.URL.Path, prefix+"profiles/"); id {
	case "":
		writeJSON(w, []LoginProfile{p})
	case "current", profileID:
		writeJSON(w, p)
	default:
		http.Error(w, "no profile has this ID", http.StatusNotFound)
	}
}

// changeProfile changes to the one profile, which is in use.
func (s *Server) changeProfile(w http.ResponseWriter, r *http.Request) {
	if strings.TrimPrefix(r.URL.Path, prefix+"profiles/") != profileID {
		http.Error(w, "no profile has this ID", http.StatusNotFound)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// newProfile makes room for another login, which there is only for one.
func (s *Server) newProfile(w http.ResponseWriter, _ *http.Request) {
	if !s.config.Node.Snapshot().NodeKey.IsZero() {
		fail(w, http.StatusNotImplemented, errors.New("tsnode has one login at a time: log out first"))
		return
	}
	w.WriteHeader(http.StatusCreated)
}

func (s *Server) profile() LoginProfile {
	p := LoginProfile{ID: profileID, Key: "profile-" + profileID, ControlURL: s.config.Node.Preferences().ControlURL}
	if nm := s.config.Node.Snapshot().Netmap; nm != nil {
		p.UserProfile, p.NodeID = nm.Users[nm.Self.User], nm.Self.StableID
		p.Name = p.UserProfile.LoginName
		p.NetworkProfile.MagicDNSName, p.NetworkProfile.DomainName, p.NetworkProfile.DisplayName = nm.MagicDNSSuffix(), nm.Domain, nm.Domain
	}
	return p
}
