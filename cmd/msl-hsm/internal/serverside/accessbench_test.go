package serverside

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/msl"
)

// BenchmarkAccessLine writes lines of messages that were answered and refused.
func BenchmarkAccessLine(b *testing.B) {
	write, end, err := AccessLogIn(filepath.Join(b.TempDir(), "access.jsonl"))
	if err != nil {
		b.Fatal(err)
	}
	defer end()
	for name, v := range map[string]msl.Served{
		"answered": {Source: "203.0.113.9", Identity: "camera-7", Authenticated: true, User: "ada@example.com", MessageID: 4711, Read: 2147, Written: 1900, Took: 3 * time.Millisecond, Message: &msl.Message{}},
		"refused":  {Source: "203.0.113.9", Identity: "camera-7", MessageID: 4711, Read: 2147, Written: 1900, Took: time.Millisecond, Response: msl.Fail, Code: 4007, Err: errors.New("no such entity"), Fault: msl.FaultPeer},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				write(b.Context(), v)
			}
		})
	}
}
