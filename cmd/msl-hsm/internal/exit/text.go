package exit

import (
	"encoding/hex"

	"github.com/msl-hsm/msl-hsm/internal/safetext"
)

// Printable escapes control characters in names chosen by peers.
func Printable(s string) string {
	if s == "" {
		return "-"
	}
	return safetext.String(s)
}

// ParseHex reads the hexadecimal value of a flag.
func ParseHex(flag, text string) ([]byte, error) {
	b, err := hex.DecodeString(text)
	if err != nil {
		return nil, Usagef("%s: want hexadecimal digits: %w", flag, err)
	}
	return b, nil
}
