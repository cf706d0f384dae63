package vpn

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/vpn/internal/wire"
)

// How long a manager waits for replies (VPN-19).
const (
	startReply = 60 * time.Second
	stopReply  = 5 * time.Second
	wakeReply  = 5 * time.Second
	peersReply = 5 * time.Second
)

// ManagerConfig says how a manager does its part.
type ManagerConfig struct {
	// Apply sets up the network interface as a whole: each time all settings, those
	// of before among them. Its error is told to the tunnel. Nil refuses settings: for
	// tunnels without a descriptor, which send none.
	Apply func(context.Context, NetworkSettings) error

	// Events takes what the tunnel tells, one at a time, in order: an Event is a
	// LogLine, or an Update that Peers knows already. While it does not return, the
	// tunnel's messages wait, and behind 64 of them its answers, too: so it must not
	// wait for Start, Stop, Wake or Refresh. Nil takes none.
	Events func(Event)

	// Header is the order of the header that is sent. Default: HeaderAuto.
	Header HeaderOrder

	// Logger takes what the manager has to say of the stream itself. Default: none.
	Logger *slog.Logger
}

// An Event is what a tunnel tells: a LogLine or an Update.
type Event interface{ event() }

// A LogLine is a line of the tunnel's log.
type LogLine struct {
	Level   slog.Level
	Message string
	Loggers []string `json:",omitempty"` // names, outermost first
	Fields  []Field  `json:",omitempty"`
}

// A Field is a value in a LogLine.
type Field struct{ Name, Value string }

func (LogLine) event() {}
func (Update) event()  {}

// A Manager is the side of a stream that tells a tunnel what to do. Its methods
// may be called from any goroutine.
type Manager struct {
	config  ManagerConfig
	version Version
	link    *link
	group   *actor.Group
	cancel  context.CancelFunc

	settings chan *wire.TunnelMessage // requests that wait for Apply
	inForce  NetworkSettings          // of serveSettings

	mu    sync.Mutex
	peers *table

	done  chan struct{} // closed when the stream has ended
	cause error         // why; nil for a clean end. Read it after done.
}

// settingsBacklog is how many requests for settings wait; a tunnel sends one at a
// time (VPN-49).
const settingsBacklog = 4

// Dial greets the tunnel at the other end of a stream, which is the manager's
// from then on. It must be closed.
func Dial(ctx context.Context, s Stream, config ManagerConfig) (*Manager, error) {
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	in := bufio.NewReaderSize(s, readBuffer)
	version, err := shake(ctx, s, in, roleManager, config.Header)
	if err != nil {
		return nil, err
	}
	m := &Manager{
		config: config, version: version, link: newLink(s, in, decodeTunnel, nil, config.Logger),
		settings: make(chan *wire.TunnelMessage, settingsBacklog), peers: newTable(), done: make(chan struct{}),
	}
	ctx, m.cancel = context.WithCancel(context.WithoutCancel(ctx))
	m.group = actor.NewGroup(ctx)
	m.link.observe = m.observe
	m.group.Go(m.serve)
	return m, nil
}

// Version is the protocol's version that both sides know.
func (m *Manager) Version() Version { return m.version }

// Done is closed when the tunnel has closed the stream, or it has broken; Err says
// why.
func (m *Manager) Done() <-chan struct{} { return m.done }

// Err is why the stream has ended; nil before, and when the tunnel has closed it.
func (m *Manager) Err() error {
	select {
	case <-m.done:
		return m.cause
	default:
		return nil
	}
}

// Close closes the stream, which stops the tunnel, and waits until Apply and
// Events are not called any more.
func (m *Manager) Close() error {
	m.cancel()
	m.link.stream.Close()
	return ended(m.group.Wait())
}

// ended takes being closed for no error.
func ended(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// serve reads what the tunnel says until the stream ends.
func (m *Manager) serve(ctx context.Context) error {
	defer close(m.done)
	m.cause = ended(actor.Run(ctx, func(ctx context.Context, g *actor.Group) error {
		defer m.link.stream.Close()
		g.Go(m.link.read)
		g.Go(m.link.write)
		g.Go(m.serveSettings)
		for {
			select {
			case msg, ok := <-m.link.incoming:
				if !ok {
					return m.link.readErr
				}
				if err := m.onMessage(msg.(*wire.TunnelMessage)); err != nil {
					return err
				}
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}))
	return nil
}

// onMessage looks at what the tunnel says beside replies.
func (m *Manager) onMessage(msg *wire.TunnelMessage) error {
	id := msg.GetRpc().GetMsgId()
	switch t := msg.GetMsg().(type) {
	case *wire.TunnelMessage_Log:
		if m.config.Events != nil {
			m.config.Events(logLineOf(t.Log))
		}
	case *wire.TunnelMessage_PeerUpdate:
		if m.config.Events != nil {
			u, _ := updateOf(t.PeerUpdate) // observe has complained
			m.config.Events(u)
		}
	case *wire.TunnelMessage_NetworkSettings:
		if id == 0 {
			m.config.Logger.Warn("vpn: network settings without an id are no request: ignored") // VPN-54
			return nil
		}
		select {
		case m.settings <- msg:
		default:
			return m.answerSettings(id, errors.New("too many requests at once"))
		}
	default:
		m.config.Logger.Warn("vpn: message of the tunnel is not understood", "kind", fmt.Sprintf("%T", t), "request", id != 0)
		if id != 0 {
			r := &wire.ManagerMessage{Rpc: replyTo(id)} // VPN-16
			return m.link.reply(r, r)
		}
	}
	return nil
}

// observe merges what every message says of peers as it comes, so that changes
// and answers with all peers stay in order (VPN-53).
func (m *Manager) observe(msg message) {
	p := msg.(*wire.TunnelMessage).GetPeerUpdate()
	if p == nil {
		return
	}
	u, err := updateOf(p)
	if err != nil {
		m.config.Logger.Warn("vpn: part of a peer update is left out", "err", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if msg.GetRpc().GetResponseTo() != 0 {
		m.peers = newTable()
	}
	m.peers.apply(&u)
}

// logLineOf reads a line of the log.
func logLineOf(l *wire.Log) LogLine {
	levels := map[wire.Log_Level]slog.Level{
		wire.Log_DEBUG: slog.LevelDebug, wire.Log_INFO: slog.LevelInfo, wire.Log_WARN: slog.LevelWarn,
		wire.Log_ERROR: slog.LevelError, wire.Log_CRITICAL: LevelCritical, wire.Log_FATAL: LevelCritical,
	}
	line := LogLine{Level: levels[l.GetLevel()], Message: l.GetMessage(), Loggers: l.GetLoggerNames()}
	for _, f := range l.GetFields() {
		line.Fields = append(line.Fields, Field{f.GetName(), f.GetValue()})
	}
	return line
}

// serveSettings applies the settings that the tunnel asks for, one request after
// the other, and answers truthfully (VPN-50).
func (m *Manager) serveSettings(ctx context.Context) error {
	for {
		select {
		case r := <-m.settings:
			if err := m.answerSettings(r.GetRpc().GetMsgId(), m.apply(ctx, r.GetNetworkSettings())); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (m *Manager) apply(ctx context.Context, r *wire.NetworkSettingsRequest) error {
	change, err := settingsOf(r)
	if err != nil {
		return err
	}
	if m.config.Apply == nil {
		return errors.New("this manager sets up no network")
	}
	next := m.inForce.Merge(change)
	if err := m.config.Apply(ctx, next); err != nil {
		return err
	}
	m.inForce = next
	return nil
}

func (m *Manager) answerSettings(id uint64, err error) error {
	ok, text := success(err)
	r := &wire.ManagerMessage{Rpc: replyTo(id), Msg: &wire.ManagerMessage_NetworkSettings{
		NetworkSettings: &wire.NetworkSettingsResponse{Success: ok, ErrorMessage: text},
	}}
	return m.link.reply(r, &wire.ManagerMessage{Rpc: r.Rpc})
}

// call sends a request and returns the tunnel's answer.
func (m *Manager) call(ctx context.Context, what string, timeout time.Duration, r *wire.ManagerMessage) (*wire.TunnelMessage, error) {
	reply, err := m.link.call(ctx, what, timeout, func(rpc *wire.RPC) message {
		r.Rpc = rpc
		return r
	})
	if err != nil {
		return nil, err
	}
	return reply.(*wire.TunnelMessage), nil
}

// Start has the tunnel join its tailnet, and returns when it has, within 60 s. A
// refusal is a RefusedError: the tunnel may be started again with other options.
func (m *Manager) Start(ctx context.Context, o StartOptions) error {
	r := &wire.StartRequest{
		TunnelFileDescriptor: int32(o.Descriptor), CoderUrl: valid(o.ControlURL), ApiToken: valid(o.Token),
		DeviceId: valid(o.DeviceID), DeviceOs: valid(o.DeviceOS), CoderDesktopVersion: valid(o.AppVersion),
	}
	for name, values := range o.Headers {
		for _, v := range values {
			r.Headers = append(r.Headers, &wire.StartRequest_Header{Name: valid(name), Value: valid(v)})
		}
	}
	reply, err := m.call(ctx, "start", startReply, &wire.ManagerMessage{Msg: &wire.ManagerMessage_Start{Start: r}})
	if err != nil {
		return err
	}
	return outcome("start", reply.GetStart())
}

// Stop ends the tunnel and waits until it has closed the stream, within 5 s for
// its answer and 5 s for that (VPN-55). A tunnel that does not answer must be
// killed.
func (m *Manager) Stop(ctx context.Context) error {
	reply, err := m.call(ctx, "stop", stopReply, &wire.ManagerMessage{Msg: &wire.ManagerMessage_Stop{Stop: new(wire.StopRequest)}})
	if err != nil {
		return err
	}
	err = outcome("stop", reply.GetStop())
	ctx, cancel := context.WithTimeout(ctx, drainTimeout)
	defer cancel()
	select {
	case <-m.done:
	case <-ctx.Done():
		err = errors.Join(err, errors.New("vpn: stop: the tunnel does not close the stream"))
	}
	return err
}

// ErrNotSupported says that the tunnel is older than what it is asked for.
var ErrNotSupported = errors.New("vpn: the tunnel's version of the protocol does not have that")

// Wake tells the tunnel that the machine has woken up. Tunnels before version 1.3
// are not told, which is ErrNotSupported (VPN-20).
func (m *Manager) Wake(ctx context.Context) error {
	if m.version.Compare(wakeVersion) < 0 {
		return ErrNotSupported
	}
	reply, err := m.call(ctx, "wake", wakeReply, &wire.ManagerMessage{Msg: &wire.ManagerMessage_Wake{Wake: new(wire.WakeRequest)}})
	if err == nil && reply.GetWake() == nil {
		err = errors.New("vpn: wake: the tunnel's answer is to something else")
	}
	return err
}

// Peers returns all peers that the tunnel has told of so far. It asks nobody.
func (m *Manager) Peers() Table {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.peers.snapshot()
}

// Refresh asks the tunnel for all peers, and returns them.
func (m *Manager) Refresh(ctx context.Context) (Table, error) {
	r := &wire.ManagerMessage{Msg: &wire.ManagerMessage_GetPeerUpdate{GetPeerUpdate: new(wire.GetPeerUpdate)}}
	reply, err := m.call(ctx, "peers", peersReply, r)
	if err == nil && reply.GetPeerUpdate() == nil {
		err = errors.New("vpn: peers: the tunnel's answer is to something else")
	}
	return m.Peers(), err
}
