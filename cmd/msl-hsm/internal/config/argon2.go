package config

import (
	"cmp"

	"github.com/msl-hsm/msl-hsm/internal/stretch"
)

// Argon2 has the parameters of Argon2id (RFC 9106). Zero means the default.
type Argon2 struct {
	Time    uint32 `yaml:"time" example:"3"`       // passes over the memory
	Memory  uint32 `yaml:"memory" example:"65536"` // KiB
	Threads uint8  `yaml:"threads" example:"4"`    // that work in parallel
}

// Cost returns the parameters with defaults filled in. In the FIPS mode of Go, which has no
// Argon2id, it returns the replacement.
func (a Argon2) Cost() stretch.Cost {
	usual := stretch.Recommended()
	if usual.Approved() {
		return usual
	}
	return stretch.Cost{
		Time: cmp.Or(a.Time, usual.Time), Memory: cmp.Or(a.Memory, usual.Memory), Threads: cmp.Or(a.Threads, usual.Threads),
	}
}
