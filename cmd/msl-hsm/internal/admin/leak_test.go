//go:debug cryptocustomrand=1

package admin

import (
	"os"
	"testing"

	"github.com/msl-hsm/msl-hsm/internal/leaktest"
	"github.com/msl-hsm/msl-hsm/internal/pairtest"
)

func TestMain(m *testing.M) {
	if err := pairtest.Install(); err != nil {
		panic(err)
	}
	os.Exit(leaktest.Run(m))
}
