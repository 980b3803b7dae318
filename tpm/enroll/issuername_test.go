package enroll

import (
	"bytes"
	"fmt"
	"testing"
)

// TestManyIssuers has a bundle of authorities whose own issuers are not in it, as those of makers
// are: what each of them costs does not grow with the others, since devices that nobody knows yet
// have names looked up, too.
func TestManyIssuers(t *testing.T) {
	m, f := newMaker(t, "Maker"), newForger(t)
	cost := func(n int) float64 {
		bundle := bytes.Clone(m.cert.Raw)
		for i := range n {
			bundle = append(bundle, m.issueOdd(f.ak.Public(), func(p *parts) {
				p.subject, p.issuer = commonName(12, fmt.Sprint("Authority ", i)), commonName(12, fmt.Sprint("Absent ", i))
			})...)
		}
		return testing.AllocsPerRun(1, func() {
			if _, err := ParseBundle(bundle); err != nil {
				t.Error(err)
			}
		})
	}
	if few, many := cost(10), cost(100); many > 15*few {
		t.Errorf("%v allocations for 10 authorities, and %v for 100", few, many)
	}
}
