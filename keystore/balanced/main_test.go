package balanced_test

import (
	"os"
	"testing"

	"github.com/msl-hsm/msl-hsm/internal/leaktest"
)

func TestMain(m *testing.M) { os.Exit(leaktest.Run(m)) }
