package config

import (
	"math"
	"reflect"
	"slices"
	"time"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
)

// Maximum values of numbers: what is computed from them does not overflow.
const (
	longestLife = 100 * 365 * 24 * time.Hour // the sum of two such times is a time
	mostBytes   = 1 << 50
	mostCount   = math.MaxInt32
)

// mayBeNegative are the settings whose negative values mean something, or are refused with a
// better reason.
func mayBeNegative() []string {
	return []string{
		"keystore.isolate-memory", "server.limits.body", "server.limits.timeout", "server.limits.connections",
		"server.limits.connections-per-source", "client.agent.timeout", "client.agent.body", "client.attest.every",
	}
}

// checkNumbers refuses negative numbers where they have no meaning, and numbers so large that
// what is computed from them would overflow.
func (c *Config) checkNumbers() error {
	for _, s := range settings(c) {
		name, v := s.name, s.value
		if !v.CanInt() {
			continue
		}
		most := int64(mostCount)
		switch {
		case v.Int() < 0 && !slices.Contains(mayBeNegative(), name):
			return exit.Usagef("%s is negative", name)
		case v.Type() == reflect.TypeFor[time.Duration]() || v.Type() == reflect.TypeFor[Watch]():
			if d := time.Duration(v.Int()); d > longestLife {
				return exit.Usagef("%s is %v: want at most %.0fh, which are 100 years", name, d, longestLife.Hours())
			}
			continue
		case v.Kind() == reflect.Int64:
			most = mostBytes
		}
		if v.Int() > most {
			return exit.Usagef("%s is %d: want at most %d", name, v.Int(), most)
		}
	}
	return nil
}
