package kvtest

import (
	"testing"

	"github.com/msl-hsm/msl-hsm/internal/kv"
)

func TestMemory(t *testing.T) {
	Run(t, func(*testing.T) kv.Store { return &Memory{} })
}
