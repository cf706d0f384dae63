// Package tka verifies what tailnet lock demands: that the keys of nodes were
// signed by keys which the tailnet's own administrators trust, so that a control
// server cannot put nodes of its own into the tailnet.
//
// An Authority is what is trusted. It grows by update messages (AUMs), each
// signed by keys that were trusted before it; they form a chain of hashes, and
// where the chain forks, all nodes choose the same branch. A node only follows:
// this package makes no updates. A signature of a node key is checked with
// Authority.Verify, those of a whole network map with Judge.
//
// The package is a pure core: bytes in, a verdict out; it reads no clock and
// does no I/O. Fetching updates and keeping them is left to control, and the
// store to node.
//
// Messages are CBOR in the canonical form of CTAP2. Only that form is accepted:
// a message is taken apart, put together again, and refused when the bytes
// differ. So unknown, doubled and unsorted fields, longer forms of numbers and
// trailing data are all refused. The reference client is more lenient there, to
// no effect: it hashes its own canonical encoding, which then has no signature.
//
// Signatures are verified as crypto/ed25519 does it. The reference accepts some
// more (ZIP-215: points of small order), which only a holder of a trusted key
// can make; here they are refused (SVC-148).
//
// Source: doc/protocol/node-services.md section 15 (SVC-143..149); every message
// and verdict is tested against the reference implementation in interop.
package tka
