package derp

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/seed94491740/tsnode/key"
)

// Limits of the login frames' payloads in bytes (DERP-08).
const (
	maxServerKey  = 1024
	minClientInfo = key.Size + NonceSize
	maxClientInfo = 256 << 10
	maxServerInfo = MaxFrame
)

// A ClientInfo is what a client tells a relay about itself (DERP-19).
type ClientInfo struct {
	MeshKey     key.Mesh // grants mesh rights if it is the relay's; absent for ordinary clients
	Version     int      // of the protocol
	CanAckPings bool     // pings will be answered
	IsProber    bool     // the client monitors the relay
	AppName     string   // opaque, for statistics
}

// clientInfoJSON is a ClientInfo on the wire.
type clientInfoJSON struct {
	MeshKey     string `json:"meshKey,omitempty"`
	Version     int    `json:"version,omitempty"`
	CanAckPings bool
	IsProber    bool   `json:",omitempty"`
	AppName     string `json:",omitempty"`
}

// A ServerInfo is what a relay tells a client after login (DERP-21).
type ServerInfo struct {
	Version                   int `json:"version,omitempty"`
	TokenBucketBytesPerSecond int `json:",omitempty"` // 0 = unlimited
	TokenBucketBytesBurst     int `json:",omitempty"`
}

// AppendClientInfo appends the first frame of a client.
func AppendClientInfo(b []byte, client key.NodePrivate, server key.NodePublic, info ClientInfo) ([]byte, error) {
	if server.IsZero() {
		return nil, errors.New("derp: relay's key is zero")
	}
	wire := clientInfoJSON{Version: info.Version, CanAckPings: info.CanAckPings, IsProber: info.IsProber, AppName: info.AppName}
	if !info.MeshKey.IsZero() {
		wire.MeshKey = info.MeshKey.SecretText()
	}
	msg, err := json.Marshal(wire)
	if err != nil {
		return nil, fmt.Errorf("derp: encode ClientInfo: %w", err)
	}
	sealed := client.SealTo(server, msg)
	b = AppendHeader(b, FrameClientInfo, key.Size+len(sealed))
	return append(appendKey(b, client.Public()), sealed...), nil
}

// ParseClientInfo opens the payload of a ClientInfo frame with the server's
// key.
func ParseClientInfo(server key.NodePrivate, b []byte) (key.NodePublic, ClientInfo, error) {
	var info ClientInfo
	if len(b) < minClientInfo || len(b) > maxClientInfo {
		return key.NodePublic{}, info, fmt.Errorf("derp: ClientInfo frame of %d bytes, want %d to %d", len(b), minClientInfo, maxClientInfo)
	}
	client, sealed := cutKey(b)
	if client.IsZero() {
		return client, info, errors.New("derp: ClientInfo with a zero key") // DERP-05
	}
	msg, ok := server.OpenFrom(client, sealed)
	if !ok {
		return client, info, fmt.Errorf("derp: ClientInfo of %v was not sealed to this relay's key", client.Short())
	}
	info, err := parseClientInfoJSON(msg)
	if err != nil {
		return client, info, fmt.Errorf("derp: ClientInfo of %v: %w", client.Short(), err)
	}
	return client, info, nil
}

func parseClientInfoJSON(msg []byte) (info ClientInfo, err error) {
	var wire clientInfoJSON
	if err := json.Unmarshal(msg, &wire); err != nil {
		return info, err
	}
	info = ClientInfo{Version: wire.Version, CanAckPings: wire.CanAckPings, IsProber: wire.IsProber, AppName: wire.AppName}
	if wire.MeshKey != "" { // a key that cannot be one is refused, another relay's is not (DERP-20)
		info.MeshKey, err = key.ParseMesh(wire.MeshKey)
	}
	return info, err
}

// AppendServerInfo appends the answer of a server to a login.
func AppendServerInfo(b []byte, server key.NodePrivate, client key.NodePublic, info ServerInfo) ([]byte, error) {
	msg, err := json.Marshal(info)
	if err != nil {
		return nil, fmt.Errorf("derp: encode ServerInfo: %w", err)
	}
	return AppendFrame(b, FrameServerInfo, server.SealTo(client, msg)), nil
}

// ParseServerInfo opens the payload of a ServerInfo frame with the client's
// key.
func ParseServerInfo(client key.NodePrivate, server key.NodePublic, b []byte) (ServerInfo, error) {
	var info ServerInfo
	if len(b) > maxServerInfo {
		return info, fmt.Errorf("derp: ServerInfo frame of %d bytes, want at most %d", len(b), maxServerInfo)
	}
	msg, ok := client.OpenFrom(server, b)
	if !ok {
		return info, fmt.Errorf("derp: ServerInfo was not sealed by relay %v", server.Short())
	}
	if err := json.Unmarshal(msg, &info); err != nil {
		return info, fmt.Errorf("derp: ServerInfo of relay %v: %w", server.Short(), err)
	}
	return info, nil
}
