package control

import "github.com/seed94491740/tsnode/key"

// Bodies of the requests of tailnet lock (SVC-146). Hashes are base32, updates
// and signatures are CBOR as package tka reads them.
type (
	// A LockBootstrapRequest asks for the beginning of the lock, or, when Head is
	// set, for the secret that turns it off.
	LockBootstrapRequest struct {
		Version int
		NodeKey key.NodePublic
		Head    string // of what the node has; empty: nothing
	}

	// A LockBootstrapResponse answers it.
	LockBootstrapResponse struct {
		GenesisAUM        []byte `json:",omitempty"`
		DisablementSecret []byte `json:",omitempty"`
	}

	// A LockOfferRequest says what the node has.
	LockOfferRequest struct {
		Version   int
		NodeKey   key.NodePublic
		Head      string
		Ancestors []string // some of the updates before Head, the oldest at the end
	}

	// A LockOfferResponse says what the server has, and what the node lacks of it.
	LockOfferResponse struct {
		Head        string
		Ancestors   []string
		MissingAUMs [][]byte // oldest first
	}

	// A LockSendRequest says where the node stands now, and what the server lacks.
	LockSendRequest struct {
		Version     int
		NodeKey     key.NodePublic
		Head        string
		MissingAUMs [][]byte
		Interactive bool // a person waits for it
	}

	// A LockSendResponse says where the server stands.
	LockSendResponse struct{ Head string }
)
