package cli

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/tpm/tpmtest"
)

// TestAgentCrowd has 128 programs send at a time through an agent on one session, whose keys
// are in a slow TPM, while one message in 40 is held on its way: the numbers of non-replayable
// messages may not come apart so far that the server ends the session.
func TestAgentCrowd(t *testing.T) {
	rounds := 1
	if os.Getenv("MSL_SOAK") != "" {
		rounds = 20
	}
	p := tpmtest.Start(t)
	s := newSite(t)
	s.url = holding(t, "http://"+s.address, 40, 200*time.Millisecond)
	s.tpmDevice(p)
	slow := tpmtest.ServeQuirky(t, p, tpmtest.Delay(500*time.Microsecond)) + "&state=" + s.path("tpm.keys")
	a := s.agent(s.device("keystore: {uri: '"+slow+"'}",
		"client:", "  url: "+s.url, "  identity: sensor", "  key: device", "  server-key: server.pem", "  state: device.db",
		"  custody: imported", "  anti-rollback: true", "  agent: {listen: 'unix:agent.sock', requests: 128}"))
	for range rounds {
		var all sync.WaitGroup
		for i := range 128 {
			all.Go(func() { a.answers(fmt.Sprintf("program %d", i), "Msl-Non-Replayable: true") })
		}
		all.Wait()
	}
	if n := a.log.count(newToken); n != 1 {
		t.Errorf("%d sessions", n)
	}
}

// holding is a proxy that holds one request in a number for a time.
func holding(t *testing.T, to string, each int64, pause time.Duration) string {
	t.Helper()
	target, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.FlushInterval = -1
	var count atomic.Int64
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if count.Add(1)%each == 0 {
			time.Sleep(pause)
		}
		http.NewResponseController(w).EnableFullDuplex()
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(web.Close)
	return web.URL
}
