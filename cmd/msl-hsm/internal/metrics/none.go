//go:build nometrics

package metrics

import (
	"net/http"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
)

// A Set is empty in this build.
type Set struct{}

// New makes an empty set.
func New(version, revision string) *Set { return &Set{} }

// Handler answers that this build has no metrics.
func (s *Set) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "this program was built without metrics: build it without the tag nometrics", http.StatusNotImplemented)
	})
}

// Message counts nothing.
func (s *Set) Message(msl.Served) {}

// Call measures nothing.
func (s *Set) Call(keystore.Call) {}

// Upstream measures nothing.
func (s *Set) Upstream(mslhttp.UpstreamCall) {}

// State measures nothing.
func (s *Set) State(string, time.Duration, error) {}

// Watch collects nothing.
func (s *Set) Watch(func() []Value) {}
