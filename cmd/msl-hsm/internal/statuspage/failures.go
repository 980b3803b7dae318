package statuspage

import (
	"slices"
	"sync"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/safetext"
	"github.com/msl-hsm/msl-hsm/msl"
)

const (
	// mostFailures is how many are kept of each fault: what strangers send must not hide
	// that the device fails.
	mostFailures = 8
	longestText  = 200 // bytes
)

// failures are the most recent ones of each fault.
type failures struct {
	mu   sync.Mutex
	last [msl.Faults][]Failure // newest last
}

func (f *failures) add(v *msl.Served, now time.Time) {
	failure := Failure{At: now, Fault: v.Fault.String(), Source: v.Source, Entity: shortened(v.Identity), Proven: v.Authenticated, Because: v.Response.String()}
	if v.Err != nil {
		failure.Because = shortened(v.Err.Error())
	}
	if v.Response != 0 && v.Code >= 0 {
		failure.Code = v.Code.Name()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	of := &f.last[max(0, min(v.Fault, msl.Faults-1))]
	if len(*of) == mostFailures {
		*of = append((*of)[:0], (*of)[1:]...)
	}
	*of = append(*of, failure)
}

// newest returns all of them, newest first.
func (f *failures) newest() []Failure {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := []Failure{}
	for _, of := range f.last {
		all = append(all, of...)
	}
	slices.SortStableFunc(all, func(a, b Failure) int { return b.At.Compare(a.At) })
	return all
}

// shortened truncates a text that a stranger may have chosen, and makes unprintable
// characters visible, including those that reverse the direction of text.
func shortened(text string) string {
	return safetext.First(safetext.String(text[:min(len(text), 2*longestText)]), longestText)
}
