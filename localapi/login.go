package localapi

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// prefs answers with the preferences in force.
func (s *Server) prefs(w http.ResponseWriter, _ *http.Request) { writeJSON(w, s.prefsNow()) }

func (s *Server) prefsNow() *Prefs {
	p := s.config.Node.Preferences()
	return prefsOf(&p, s.config.Node.Snapshot())
}

// editPrefs changes preferences, all or none, and answers with those in force.
func (s *Server) editPrefs(w http.ResponseWriter, r *http.Request) {
	var m maskedPrefs
	if !readJSON(w, r, &m) {
		return
	}
	if err := s.change(m); err != nil {
		fail(w, http.StatusBadRequest, err)
		return
	}
	s.poke()
	s.prefs(w, r)
}

func (s *Server) change(m maskedPrefs) error {
	now := s.config.Node.Snapshot()
	return s.config.Node.EditPreferences(func(p *Preferences) error { return m.apply(p, prefsOf(p, now)) })
}

// checkPrefs says whether a whole set of preferences would be taken.
func (s *Server) checkPrefs(w http.ResponseWriter, r *http.Request) {
	var m maskedPrefs
	if !readJSON(w, r, &m) {
		return
	}
	p := s.config.Node.Preferences()
	m.normalise(&p)
	var answer struct{ Error string }
	if err := m.all().apply(&p, s.prefsNow()); err != nil {
		answer.Error = err.Error()
	}
	writeJSON(w, answer)
}

// normalise makes of a control URL what the node calls it, if it means the same.
func (m maskedPrefs) normalise(p *Preferences) {
	const name = "ControlURL"
	if text := strings.Trim(string(m[name]), `"`); text == "" || strings.TrimSuffix(text, "/") == strings.TrimSuffix(p.ControlURL, "/") {
		delete(m, name)
	}
}

// Options are what start takes.
type Options struct {
	FrontendLogID string      // of no use here
	UpdatePrefs   maskedPrefs // the whole set
	AuthKey       string
}

// start takes preferences, and logs in with an auth key if the node needs that: one
// that is logged in stays who it is. It answers when the control server has.
func (s *Server) start(w http.ResponseWriter, r *http.Request) {
	var o Options
	if !readJSON(w, r, &o) {
		return
	}
	takeTime(w)
	if err := s.startWith(r, &o); err != nil {
		fail(w, http.StatusBadRequest, err)
		return
	}
	s.poke()
	w.WriteHeader(http.StatusNoContent)
}

func (s *Server) startWith(r *http.Request, o *Options) error {
	if o.UpdatePrefs != nil {
		p := s.config.Node.Preferences()
		o.UpdatePrefs.normalise(&p)
		if o.UpdatePrefs["ControlURL"] != nil {
			return fmt.Errorf("this node belongs to %s: to change that, start it with another --login-server and state", p.ControlURL)
		}
		if err := s.change(o.UpdatePrefs.all()); err != nil {
			return err
		}
	}
	if o.AuthKey == "" {
		return nil
	}
	offered := &offer{authKey: o.AuthKey, until: time.Now().Add(offerTime)}
	if now := s.config.Node.Snapshot(); now.State == NeedsLogin || now.NodeKey.IsZero() {
		if err := s.config.Node.Login(r.Context(), o.AuthKey); err != nil {
			return err
		}
		offered.used = true
	}
	s.offer.Store(offered)
	return nil
}

// offerTime is how soon after a start a login belongs to it.
const offerTime = 10 * time.Second

// An offer is the auth key of a start, for the login that may follow at once: the
// ecosystem's command asks for that if there was none before, or to log in anew.
type offer struct {
	authKey string
	used    bool // start has logged in with it
	until   time.Time
}

// takeOffer returns the auth key for a login, empty for none, and whether it has
// brought a login already.
func (s *Server) takeOffer() (authKey string, used bool) {
	o := s.offer.Swap(nil)
	if o == nil || time.Now().After(o.until) {
		return "", false
	}
	return o.authKey, o.used
}

// loginInteractive logs in anew: with the auth key of the start before, or it asks
// for a URL that a person may log in at, which the bus brings.
func (s *Server) loginInteractive(w http.ResponseWriter, r *http.Request) {
	authKey, used := s.takeOffer()
	if !used && (authKey != "" || s.config.Node.Snapshot().AuthURL == "") {
		takeTime(w)
		if err := s.config.Node.Login(r.Context(), authKey); err != nil {
			fail(w, http.StatusBadRequest, err)
			return
		}
	}
	s.poke()
	w.WriteHeader(http.StatusNoContent)
}

// logout makes the control server forget the login.
func (s *Server) logout(w http.ResponseWriter, r *http.Request) {
	takeTime(w)
	if err := s.config.Node.Logout(r.Context()); err != nil {
		fail(w, http.StatusBadGateway, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// shutdown ends the program.
func (s *Server) shutdown(w http.ResponseWriter, _ *http.Request) {
	if s.config.Shutdown == nil {
		fail(w, http.StatusNotImplemented, errors.New("this program does not end by request"))
		return
	}
	w.WriteHeader(http.StatusOK)
	s.config.Shutdown()
}

// poke has watchers told where the node is, even if it has not changed: who asked
// for something waits for that.
func (s *Server) poke() { s.pokes.Store(s.pokes.Get() + 1) }

// takeTime lets a request, whose body has been read, be answered later than others.
func takeTime(w http.ResponseWriter) {
	http.NewResponseController(w).SetReadDeadline(noDeadline)
}
