package cli

import (
	"testing"

	"github.com/msl-hsm/msl-hsm/internal/leaktest"
)

// A leakChecked runs the tests, and fails if they leave goroutines of this module.
type leakChecked struct{ *testing.M }

func (m leakChecked) Run() int { return leaktest.Run(m.M) }
