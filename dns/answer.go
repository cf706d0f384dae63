package dns

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// typeNames are the types that people ask for.
var typeNames = map[dnsmessage.Type]string{
	dnsmessage.TypeA: "A", dnsmessage.TypeAAAA: "AAAA", dnsmessage.TypeCNAME: "CNAME", dnsmessage.TypeNS: "NS",
	dnsmessage.TypePTR: "PTR", dnsmessage.TypeSOA: "SOA", dnsmessage.TypeMX: "MX", dnsmessage.TypeTXT: "TXT",
	dnsmessage.TypeSRV: "SRV", dnsmessage.TypeALL: "ANY", dnsmessage.TypeOPT: "OPT",
}

// typeName returns the name of a type, TYPE and its number for others (RFC 3597
// section 5).
func typeName(t dnsmessage.Type) string {
	if name, ok := typeNames[t]; ok {
		return name
	}
	return "TYPE" + strconv.Itoa(int(t))
}

// ParseType returns the type of a name such as AAAA, in any case, or of TYPEn (RFC
// 3597 section 5).
func ParseType(text string) (dnsmessage.Type, error) {
	text = strings.ToUpper(text)
	for t, name := range typeNames {
		if name == text && t != dnsmessage.TypeOPT {
			return t, nil
		}
	}
	if n, ok := strings.CutPrefix(text, "TYPE"); ok {
		if n, err := strconv.ParseUint(n, 10, 16); err == nil && n > 0 {
			return dnsmessage.Type(n), nil
		}
	}
	return 0, fmt.Errorf("dns: type %q: want A, AAAA, CNAME, MX, NS, PTR, SOA, SRV, TXT, ANY or TYPEn", text)
}

// codeNames are the codes as other tools spell them (RFC 6895 section 2.3).
var codeNames = map[dnsmessage.RCode]string{
	dnsmessage.RCodeSuccess: "NOERROR", dnsmessage.RCodeFormatError: "FORMERR", dnsmessage.RCodeServerFailure: "SERVFAIL",
	dnsmessage.RCodeNameError: "NXDOMAIN", dnsmessage.RCodeNotImplemented: "NOTIMP", dnsmessage.RCodeRefused: "REFUSED",
}

func codeName(c dnsmessage.RCode) string {
	if name, ok := codeNames[c]; ok {
		return name
	}
	return "RCODE" + strconv.Itoa(int(c))
}

// A Record is one record of an answer as text.
type Record struct {
	Name string
	Type string
	TTL  uint32 // seconds
	Data string
}

// An Answer is what came of a question, for people.
type Answer struct {
	Name      string        // that was asked
	Type      string        // that was asked
	Code      string        // such as NOERROR or NXDOMAIN
	Records   []Record      `json:",omitempty"`
	Authority []Record      `json:",omitempty"`
	Local     bool          // the node has answered by itself
	Route     string        `json:",omitempty"` // suffix of the route that was taken; "." is the default
	Resolvers []string      `json:",omitempty"` // who was asked
	Took      time.Duration `json:"-"`
	Message   []byte        `json:"-"` // as on the wire
}

// Ask asks for a name, as people write it, and tells what came of it: a reverse
// name for an IP address whose type is PTR.
func (r *Resolver) Ask(ctx context.Context, name, typ string) (*Answer, error) {
	t, err := ParseType(typ)
	if err != nil {
		return nil, err
	}
	if a, err := netip.ParseAddr(name); err == nil && t == dnsmessage.TypePTR {
		name = reverseOf(a.Unmap())
	}
	full, ok := canonical(name)
	if !ok {
		return nil, fmt.Errorf("dns: %q is no DNS name", name)
	}
	question, err := newQuery(newID(), full, t)
	if err != nil {
		return nil, fmt.Errorf("dns: %q: %w", name, err)
	}
	answer := &Answer{Name: full + ".", Type: typeName(t)}
	answer.describe(r.Table().Decide(full, t))
	began := time.Now()
	msg, err := r.Query(ctx, "tcp", question)
	answer.Took = time.Since(began)
	if err != nil {
		return nil, err
	}
	answer.Message = msg
	return answer, answer.parse(msg)
}

// describe says who answers.
func (a *Answer) describe(d Decision) {
	if a.Local = d.Verdict != Forward; a.Local {
		return
	}
	a.Route = d.Route
	if a.Route == "" && len(d.Upstreams) > 0 {
		a.Route = "."
	}
	for _, u := range d.Upstreams {
		a.Resolvers = append(a.Resolvers, u.String())
	}
}

// parse takes the code and the records of a message.
func (a *Answer) parse(msg []byte) error {
	var p dnsmessage.Parser
	h, err := p.Start(msg)
	if err != nil {
		return fmt.Errorf("dns: answer: %w", err)
	}
	a.Code = codeName(h.RCode)
	if err := p.SkipAllQuestions(); err != nil {
		return fmt.Errorf("dns: answer: %w", err)
	}
	if a.Records, err = records(p.Answer); err != nil {
		return err
	}
	a.Authority, err = records(p.Authority)
	return err
}

// records reads one section.
func records(next func() (dnsmessage.Resource, error)) (all []Record, err error) {
	for {
		r, err := next()
		switch {
		case errors.Is(err, dnsmessage.ErrSectionDone):
			return all, nil
		case err != nil:
			return all, fmt.Errorf("dns: answer: %w", err)
		}
		all = append(all, Record{r.Header.Name.String(), typeName(r.Header.Type), r.Header.TTL, data(r.Body)})
	}
}

// data returns a record's data in the form of zone files (RFC 1035 section 5).
func data(body dnsmessage.ResourceBody) string {
	switch r := body.(type) {
	case *dnsmessage.AResource:
		return netip.AddrFrom4(r.A).String()
	case *dnsmessage.AAAAResource:
		return netip.AddrFrom16(r.AAAA).String()
	case *dnsmessage.CNAMEResource:
		return r.CNAME.String()
	case *dnsmessage.NSResource:
		return r.NS.String()
	case *dnsmessage.PTRResource:
		return r.PTR.String()
	case *dnsmessage.MXResource:
		return fmt.Sprintf("%d %v", r.Pref, r.MX)
	case *dnsmessage.SRVResource:
		return fmt.Sprintf("%d %d %d %v", r.Priority, r.Weight, r.Port, r.Target)
	case *dnsmessage.SOAResource:
		return fmt.Sprintf("%v %v %d %d %d %d %d", r.NS, r.MBox, r.Serial, r.Refresh, r.Retry, r.Expire, r.MinTTL)
	case *dnsmessage.TXTResource:
		var quoted []string
		for _, s := range r.TXT {
			quoted = append(quoted, strconv.Quote(s))
		}
		return strings.Join(quoted, " ")
	case *dnsmessage.SVCBResource:
		return binding(r)
	case *dnsmessage.HTTPSResource:
		return binding(&r.SVCBResource)
	case *dnsmessage.UnknownResource:
		return fmt.Sprintf(`\# %d %x`, len(r.Data), r.Data) // RFC 3597 section 5
	}
	return ""
}

// binding returns the data of a SVCB or HTTPS record, each parameter by its number
// (RFC 9460 section 2.1).
func binding(r *dnsmessage.SVCBResource) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d %v", r.Priority, r.Target)
	for _, p := range r.Params {
		fmt.Fprintf(&b, " key%d", p.Key)
		if len(p.Value) > 0 {
			b.WriteByte('=')
		}
		for _, c := range p.Value {
			if c > ' ' && c < 0x7f && !strings.ContainsRune(`"\();`, rune(c)) {
				b.WriteByte(c)
			} else {
				fmt.Fprintf(&b, `\%03d`, c)
			}
		}
	}
	return b.String()
}

// reverseOf returns the name that maps an address back to names.
func reverseOf(a netip.Addr) string {
	var name strings.Builder
	if a.Is4() {
		b := a.As4()
		return fmt.Sprintf("%d.%d.%d.%d%s", b[3], b[2], b[1], b[0], reverse4)
	}
	b := a.As16()
	for i := len(b) - 1; i >= 0; i-- {
		fmt.Fprintf(&name, "%x.%x.", b[i]&15, b[i]>>4)
	}
	return strings.TrimSuffix(name.String(), ".") + reverse6
}
