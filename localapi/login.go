package localapi

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
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

// start takes preferences and logs in with an auth key, if the node needs that.
// It answers when the control server has.
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
	if err := s.config.Node.Login(r.Context(), o.AuthKey); err != nil {
		return err
	}
	k := s.config.Node.Snapshot().NodeKey
	s.keyed.Store(&k)
	return nil
}

// loginInteractive asks for a URL that a person may log in at; the bus brings it.
// The ecosystem's command does so after a start with an auth key, too, before which
// there was no login: then there is one by now.
func (s *Server) loginInteractive(w http.ResponseWriter, r *http.Request) {
	now := s.config.Node.Snapshot()
	keyed := s.keyed.Swap(nil)
	if now.AuthURL == "" && (keyed == nil || *keyed != now.NodeKey) {
		if err := s.config.Node.Login(r.Context(), ""); err != nil {
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
