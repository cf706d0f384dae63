package vpn

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"
	"unicode"

	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/vpn/internal/wire"
)

const (
	wakeGap  = 5 * time.Second // Wake does something at most this often; VPN-33
	maxStops = 16              // Stop requests that wait for the end
)

// A state is how far a session is (vpn-tunnel.md section 5). A session begins
// after the handshake, and is over when it is closed.
type state int

const (
	stateReady state = iota
	stateStarting
	stateRunning
	stateStopping
)

// A session is a tunnel on one stream. It answers what the manager asks.
type session struct {
	Tunnel
	link    *link
	logs    *logQueue
	updater *updater

	state   state
	run     *run             // nil when ready
	stops   []uint64         // ids of the Stop requests to answer at the end
	overdue <-chan time.Time // when the run should be gone; nil before it is stopped
	woken   time.Time
	unknown map[string]bool // what was logged as not understood
	failed  error           // why the stream is of no use any more; nil: it is
}

// serve answers until the stream is done with.
func (s *session) serve(ctx context.Context, g *actor.Group) error {
	for {
		up, ended := s.run.signals(s.state)
		select {
		case m, ok := <-s.link.incoming:
			if !ok {
				return s.onStreamEnd(ctx)
			}
			s.onMessage(ctx, g, m.(*wire.ManagerMessage))
		case <-up:
			s.onUp()
		case err := <-ended:
			if over, err := s.onRunEnd(ctx, err); over {
				return err
			}
		case <-s.overdue:
			return s.finish(ctx, errOverdue)
		case <-ctx.Done():
			return ctx.Err()
		}
		switch {
		case s.failed != nil: // which cancels the run
			s.Logger.Warn("vpn: the stream is given up", "err", s.failed)
			return s.failed
		case s.state == stateStopping && s.run == nil:
			return s.finish(ctx, nil)
		}
	}
}

// onMessage looks at what the manager says.
func (s *session) onMessage(ctx context.Context, g *actor.Group, m *wire.ManagerMessage) {
	id := m.GetRpc().GetMsgId()
	switch msg := m.GetMsg().(type) {
	case *wire.ManagerMessage_Start:
		s.onStart(ctx, g, id, msg.Start)
	case *wire.ManagerMessage_Stop:
		s.onStop(id)
	case *wire.ManagerMessage_GetPeerUpdate:
		if id != 0 {
			s.failed = cmp.Or(s.updater.ask(id), s.failed)
		}
	case *wire.ManagerMessage_Wake:
		s.onWake(time.Now())
		s.answer(id, &wire.TunnelMessage{Msg: &wire.TunnelMessage_Wake{Wake: new(wire.WakeResponse)}})
	default:
		s.onUnknown(id, fmt.Sprintf("%T", msg))
	}
}

// answer replies to a request; nil says no more than that it is over. What has no
// id is no request.
func (s *session) answer(id uint64, m *wire.TunnelMessage) {
	if id == 0 {
		return
	}
	if m == nil {
		m = new(wire.TunnelMessage)
	}
	m.Rpc = replyTo(id)
	s.failed = cmp.Or(s.link.reply(m, &wire.TunnelMessage{Rpc: m.Rpc}), s.failed)
}

// onUnknown ends a call that is not understood with an empty reply (VPN-16).
func (s *session) onUnknown(id uint64, what string) {
	if s.unknown == nil {
		s.unknown = make(map[string]bool)
	}
	if !s.unknown[what] {
		s.unknown[what] = true
		s.Logger.Warn("vpn: message of the manager is not understood", "kind", what, "request", id != 0)
	}
	s.answer(id, nil)
}

// onStart begins a run.
func (s *session) onStart(ctx context.Context, g *actor.Group, id uint64, m *wire.StartRequest) {
	if id == 0 {
		s.onUnknown(0, "Start without an id")
		return
	}
	var err error
	switch {
	case s.state == stateStopping:
		err = errors.New("the tunnel is stopping: start it on a new stream")
	case s.state != stateReady:
		err = errors.New("tunnel already started")
	case m.GetCoderUrl() == "":
		err = errors.New("the URL of the control server is missing")
	default:
		err = checkHeaders(m.GetHeaders())
	}
	if err != nil {
		s.answerStart(id, err)
		return
	}
	s.state = stateStarting
	s.run = newRun(ctx, s, id, m)
	s.updater.view.Store(&view{run: s.run, quiet: true})
	g.Go(s.run.serve)
}

// optionsOf are the options in a request.
func (s *session) optionsOf(m *wire.StartRequest) StartOptions {
	o := StartOptions{
		ControlURL: m.GetCoderUrl(), Token: m.GetApiToken(), Headers: make(http.Header), Descriptor: max(0, int(m.GetTunnelFileDescriptor())),
		DeviceID: m.GetDeviceId(), DeviceOS: m.GetDeviceOs(), AppVersion: m.GetCoderDesktopVersion(),
		Logger: slog.New(&logHandler{queue: s.logs, level: s.LogLevel, names: []string{"tsnode"}}),
	}
	for _, h := range m.GetHeaders() {
		o.Headers.Add(h.GetName(), h.GetValue())
	}
	return o
}

// checkHeaders refuses what cannot be in a request; RFC 9110 sections 5.1 and 5.5. A
// value is a secret (VPN-23).
func checkHeaders(headers []*wire.StartRequest_Header) error {
	for _, h := range headers {
		name := h.GetName()
		switch {
		case name == "" || strings.ContainsFunc(name, func(r rune) bool { return !strings.ContainsRune(tokenLetters, r) }):
			return fmt.Errorf("header %.100q: no name of an HTTP header: want letters, digits and hyphens", name)
		case strings.ContainsFunc(h.GetValue(), func(r rune) bool { return unicode.IsControl(r) && r != '\t' }):
			return fmt.Errorf("header %s: its value has characters that none may have, such as line feeds", name)
		}
	}
	return nil
}

// tokenLetters are those of a token; RFC 9110 section 5.6.2.
const tokenLetters = "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

func (s *session) answerStart(id uint64, err error) {
	ok, text := success(err)
	s.answer(id, &wire.TunnelMessage{Msg: &wire.TunnelMessage_Start{Start: &wire.StartResponse{Success: ok, ErrorMessage: text}}})
}

// success is an error as answers have it: a failure has a text, a success none
// (VPN-25).
func success(err error) (ok bool, text string) {
	if err == nil {
		return true, ""
	}
	return false, cmp.Or(valid(err.Error()), "failed")
}

// onUp tells that the tunnel runs, and then which peers there are.
func (s *session) onUp() {
	s.state = stateRunning
	s.run.answered = true
	s.answerStart(s.run.id, nil)
	s.updater.view.Store(&view{run: s.run})
}

// onStop ends the run; the answer comes when it is gone (VPN-34).
func (s *session) onStop(id uint64) {
	switch {
	case id == 0: // wants no answer
	case len(s.stops) == maxStops:
		s.answer(id, stopped(errors.New("the tunnel is stopping: many have asked for it")))
	default:
		s.stops = append(s.stops, id)
	}
	s.stop()
}

// stopped is the answer to Stop.
func stopped(err error) *wire.TunnelMessage {
	ok, text := success(err)
	return &wire.TunnelMessage{Msg: &wire.TunnelMessage_Stop{Stop: &wire.StopResponse{Success: ok, ErrorMessage: text}}}
}

func (s *session) stop() {
	if s.state == stateStopping {
		return
	}
	s.state = stateStopping
	s.updater.freeze()
	if s.run != nil {
		s.overdue = time.After(closeTimeout)
		s.run.cancel()
	}
}

// onWake has the node look for its paths anew, not too often.
func (s *session) onWake(now time.Time) {
	if s.state == stateRunning && (s.woken.IsZero() || now.Sub(s.woken) >= wakeGap) {
		s.woken = now
		s.run.node.Wake()
	}
}

// onRunEnd says what has become of a run that is gone: of a start that failed, of
// a stop, or of a node that has died.
func (s *session) onRunEnd(ctx context.Context, err error) (over bool, _ error) {
	run := s.run
	s.run = nil
	switch s.state {
	case stateStarting:
		s.state = stateReady
		s.updater.view.Store(nil)
		s.answerStart(run.id, cmp.Or(err, errNodeEnded))
		return false, nil
	case stateStopping:
		if !run.answered {
			s.answerStart(run.id, errors.New("the tunnel was stopped"))
			err = nil // of a start that was cancelled
		}
		return true, s.finish(ctx, err)
	}
	err = cmp.Or(err, errNodeEnded)
	slog.New(&logHandler{queue: s.logs, level: s.LogLevel}).Log(ctx, LevelCritical, "the tunnel has ended", "err", err)
	s.close(ctx, nil)
	return true, fmt.Errorf("vpn: %w", err)
}

var (
	// errNodeEnded says that a node has ended without saying why.
	errNodeEnded = errors.New("the node has ended")

	// errOverdue says that a node takes longer to close than a manager waits. Serve
	// waits for it all the same.
	errOverdue = fmt.Errorf("the node has not closed within %v, and goes on with it", closeTimeout)
)

// finish answers the Stop requests, the last of them with the stream's last frame
// (VPN-34, VPN-35).
func (s *session) finish(ctx context.Context, err error) error {
	var last []byte
	for i, id := range s.stops {
		m := stopped(err)
		if i < len(s.stops)-1 {
			s.answer(id, m)
			continue
		}
		m.Rpc = replyTo(id)
		last, _ = encode(m) // it is short and valid
	}
	s.close(ctx, last)
	return err
}

// close ends the stream behind the answers to what was asked (VPN-18), with a last
// frame unless that is nil.
func (s *session) close(ctx context.Context, last []byte) {
	ctx, cancel := context.WithTimeout(ctx, drainTimeout)
	defer cancel()
	s.updater.catchUp(ctx)
	s.link.finish(ctx, last)
}

// onStreamEnd ends what runs, for nobody is there who could (VPN-37). A manager that
// has asked for the end may have closed its write side alone, and is answered.
func (s *session) onStreamEnd(ctx context.Context) (err error) {
	s.stop()
	if s.run != nil {
		select {
		case err = <-s.run.ended:
		case <-s.overdue:
			err = errOverdue
		}
		if !s.run.answered {
			s.answerStart(s.run.id, errors.New("the tunnel was stopped"))
			err = nil // of a start that was cancelled
		}
	}
	if s.link.readErr != nil {
		s.Logger.Warn("vpn: the stream has broken", "err", s.link.readErr)
		return s.link.readErr
	}
	if len(s.stops) == 0 {
		return nil
	}
	return s.finish(ctx, err)
}
