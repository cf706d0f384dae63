package ground

// A NAT is a kind of gateway, by what it does to UDP (RFC 4787).
type NAT uint8

// Kinds of gateways.
const (
	// Public is a router: hosts have public addresses and no filter.
	Public NAT = iota

	// FullCone keeps a host's source port towards every destination and lets
	// anybody answer there: endpoint-independent mapping and filtering.
	FullCone

	// Easy keeps a host's source port towards every destination, as Linux does
	// while it is free, but lets only those answer to whom the host has sent:
	// endpoint-independent mapping, address and port-dependent filtering.
	Easy

	// Symmetric chooses a random source port for every destination: address and
	// port-dependent mapping and filtering.
	Symmetric

	// Blocked loses all UDP; TCP is translated as in Easy.
	Blocked

	// Mapped is Symmetric with NAT-PMP (RFC 6886): hosts may ask for a port.
	Mapped
)

// NATs are all kinds of gateways.
var NATs = []NAT{Public, FullCone, Easy, Symmetric, Blocked, Mapped}

var natNames = [...]string{"none", "full cone", "easy", "symmetric", "UDP blocked", "port-mapped"}

// String returns the kind's name, for tables.
func (n NAT) String() string { return natNames[n] }
