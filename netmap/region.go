package netmap

// A DERPMap lists the relays of the tailnet (control.md section 13.2, DERP-132).
type DERPMap struct {
	HomeParams         *HomeParams `json:",omitempty"`
	Regions            map[int]*Region
	OmitDefaultRegions bool `json:"omitDefaultRegions,omitempty"`
}

// HomeParams weighs regions when a home is chosen.
type HomeParams struct {
	RegionScore map[int]float64 `json:",omitempty"` // factor on measured latency; default 1, <= 0 ignored
}

// A Region is a set of relays that share their clients.
type Region struct {
	RegionID        int
	RegionCode      string      `json:",omitempty"`
	RegionName      string      `json:",omitempty"`
	Latitude        float64     `json:",omitempty"`
	Longitude       float64     `json:",omitempty"`
	Avoid           bool        `json:",omitempty"` // deprecated: do not choose as home
	NoMeasureNoHome bool        `json:",omitempty"` // never probe, never home
	Nodes           []*DERPNode // in this client's order of preference
}

// A DERPNode is one relay.
type DERPNode struct {
	Name             string
	RegionID         int
	HostName         string
	CertName         string `json:",omitempty"` // expected name, or "sha256-raw:" and the certificate's hash
	IPv4             string `json:",omitempty"` // forced address; "none" disables the family; empty = DNS
	IPv6             string `json:",omitempty"`
	STUNPort         int    `json:",omitempty"` // 0 = 3478, -1 = none
	STUNOnly         bool   `json:",omitempty"`
	DERPPort         int    `json:",omitempty"` // 0 = 443
	InsecureForTests bool   `json:",omitempty"`
	STUNTestIP       string `json:",omitempty"`
	CanPort80        bool   `json:",omitempty"`
}
