package clientside

import (
	"bytes"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"github.com/msl-hsm/msl-hsm/internal/logsample"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl/agent"
)

// TestFaults says who has to act when a request got no answer.
func TestFaults(t *testing.T) {
	disk := &fs.PathError{Op: "write", Path: "client.db", Err: syscall.EROFS}
	for want, e := range map[string]agent.Exchange{
		"level=ERROR msg=\"no complete answer\" fault=agent ":   {Status: http.StatusInternalServerError, Err: fmt.Errorf("state: %w", disk)},
		"level=WARN msg=\"no complete answer\" fault=keystore ": {Status: http.StatusServiceUnavailable, Err: fmt.Errorf("sign: %w", keystore.ErrLost)},
		"level=WARN msg=\"no complete answer\" fault=server ":   {Status: http.StatusBadGateway, Err: syscall.ECONNREFUSED},
		"level=WARN msg=\"no complete answer\" fault=program ":  {Status: http.StatusBadRequest, Err: syscall.EINVAL},
	} {
		var log bytes.Buffer
		a := &Agent{Failures: logsample.New(slog.NewTextHandler(&log, nil))}
		a.report(t.Context(), e)
		if got := log.String(); !strings.Contains(got, want) {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
