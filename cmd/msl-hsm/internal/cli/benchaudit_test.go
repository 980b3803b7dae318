//go:build cgo && !nopkcs11

package cli

import (
	"context"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/serverside"
	"github.com/msl-hsm/msl-hsm/internal/auditlog"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
)

// BenchmarkAudit is BenchmarkEcho without and with an audit log, in processor time.
func BenchmarkAudit(b *testing.B) {
	for _, place := range benchStores[:2] {
		for _, name := range []string{"off", "on"} {
			b.Run(place.name+"/"+name, func(b *testing.B) {
				n := newBench(b, place.open(b))
				if name == "on" {
					n.server.Report = auditTo(b, n)
				}
				c := n.device("PSK")()
				defer c.Close()
				echo(b, c, true)
				before := userTime(b)
				measure(b, n, 1, func() { echo(b, c, false) })
				b.ReportMetric(float64((userTime(b)-before).Nanoseconds())/1000/float64(b.N), "user-us/msg")
			})
		}
	}
}

// auditTo returns what writes an audit log that is signed by a key of the store.
func auditTo(b *testing.B, n *bench) func(context.Context, msl.Served) {
	n.create(n.store, "audit", keystore.RoleAudit.Algorithm())
	signer, err := keys.SignerOf(n.store, "audit", "")
	if err != nil {
		b.Fatal(err)
	}
	log, err := auditlog.Open(auditlog.Config{Path: filepath.Join(b.TempDir(), "audit"), Signer: signer})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := log.Close(); err != nil {
			b.Error(err)
		}
	})
	return func(_ context.Context, v msl.Served) { log.Record(serverside.MessageRecord(v)) }
}

// userTime is the time that this process has run outside the kernel.
func userTime(b *testing.B) time.Duration {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		b.Fatal(err)
	}
	return time.Duration(used.Utime.Nano())
}
