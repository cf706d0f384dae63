package wireguard

import "time"

// Limits of a keypair and of a handshake (WireGuard paper section 6.1;
// doc/protocol/wireguard.md section 1.1).
const (
	rekeyAfterMessages  uint64 = 1 << 60
	rejectAfterMessages uint64 = 1<<64 - 1<<13 - 1

	rekeyAfterTime   = 120 * time.Second
	rejectAfterTime  = 180 * time.Second
	rekeyAttemptTime = 90 * time.Second
	rekeyTimeout     = 5 * time.Second
	keepaliveTimeout = 10 * time.Second
	cookieLifetime   = 120 * time.Second

	// noAnswerTimeout is how long sent data may go unanswered before a new
	// handshake is wanted: KeepaliveTimeout + RekeyTimeout (paper section 6.5).
	noAnswerTimeout = keepaliveTimeout + rekeyTimeout

	// rekeyOnReceive is the age from which an initiator that only receives wants
	// a handshake (paper section 6.2).
	rekeyOnReceive = rejectAfterTime - keepaliveTimeout - rekeyTimeout

	// eraseAfter is how long after the last handshake all keys are gone (paper
	// section 6.3).
	eraseAfter = 3 * rejectAfterTime

	// minInitiationGap is the least time between accepted initiations of a peer.
	minInitiationGap = 20 * time.Millisecond

	// maxJitter is added to timeouts at random, so that peers do not stay in step.
	maxJitter = 333 * time.Millisecond

	// rekeySpread is added at random to rekeyAfterTime (WG-40).
	rekeySpread = 5 * time.Second

	// wakeSlack is how late a deadline may be met, to meet several at one wake-up
	// (WG-43).
	wakeSlack = 100 * time.Millisecond

	// paddingMultiple is what plaintexts are padded to, in bytes (paper section
	// 5.4.6).
	paddingMultiple = 16
)

// Rates and intervals of our own (doc/protocol/wireguard.md sections 1.5, 2 and
// 4.5).
const (
	healInterval    = 60 * time.Second // own initiations for old stamps, per peer; WG-12
	unknownInterval = 15 * time.Second // wants by unknown indices, per peer; WG-52
	heardInterval   = 10 * time.Second // between reports of an unchanged source; WG-57

	unknownPerSecond  = 10   // wants by unknown indices, per engine; WG-52
	failuresPerSecond = 50   // failing responses tried per pending initiation; WG-36
	opensPerSecond    = 10   // cookie replies opened per peer; WG-21
	repliesPerSecond  = 1000 // cookie replies sent per engine; WG-26
)

// maxReserve is the most counters one batch takes (WG-27).
const maxReserve = 1024

// Park queues (WG-46).
const (
	maxParkedPackets = 64        // per peer
	maxParkedBytes   = 128 << 10 // per peer
	maxParkedTotal   = 4 << 20   // bytes per engine
)

// What an engine and its users hold at most, in bytes (WG-81).
const (
	SealerMemory    = arenaSize
	OpenerMemory    = 2 * openerBuffer
	ParkedMemory    = maxParkedTotal
	HeldMemory      = 8 << 20 // of packets that wait for others, unless Config.Held is less; WG-102
	HandshakeMemory = ringSlots*(initiationSize+20) + limiterSlots*8
)
