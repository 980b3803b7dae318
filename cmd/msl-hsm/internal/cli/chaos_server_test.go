//go:build !noetcd

package cli

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/porttest"
)

// A siteServer is a server of a site, in a process that can be killed and paused.
type siteServer struct {
	t       *testing.T
	site    *chaosSite
	name    string
	address string
	clock   time.Duration    // how far its clock is ahead
	etcd    []*porttest.Link // to each member

	mu      sync.Mutex
	command *exec.Cmd
	ended   chan struct{} // closed when the process has
}

// addServer makes the configuration of a server, and chooses its address. Without members
// of etcd its state is the file beside the token.
func (s *chaosSite) addServer(clock time.Duration) {
	v := &siteServer{t: s.t, site: s, name: fmt.Sprint("server", len(s.servers)), address: porttest.Address(s.t), clock: clock}
	var urls []string
	for _, m := range s.members {
		l := porttest.NewLink(s.t, strings.TrimPrefix(m.URL, "http://"))
		v.etcd = append(v.etcd, l)
		urls = append(urls, "http://"+l.Addr().String())
	}
	if len(urls) == 0 {
		s.config(v.name+".yaml", "dev/server.db")
	} else {
		s.config(v.name+".yaml", inEtcd(urls))
	}
	s.t.Cleanup(v.kill)
	s.servers = append(s.servers, v)
}

// start starts the server, and returns when it is ready. While etcd does not answer it ends
// at once, and is started again, as systemd does.
func (v *siteServer) start() {
	v.t.Helper()
	ready := filepath.Join(v.site.dir, v.name+".ready")
	for end := time.Now().Add(2 * time.Minute); ; {
		os.Remove(ready)
		ended := v.launch(ready)
		for running := true; running; {
			if _, err := os.Stat(ready); err == nil {
				return
			}
			select {
			case <-ended:
				running = false
			case <-time.After(10 * time.Millisecond):
			}
			if time.Now().After(end) {
				v.t.Errorf("%s does not get ready: %s", v.name, v.log())
				return
			}
		}
	}
}

func (v *siteServer) launch(ready string) <-chan struct{} {
	v.t.Helper()
	setClock(v.t, v.clockFile(), v.clock)
	log, err := os.OpenFile(v.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		v.t.Fatal(err)
	}
	defer log.Close()
	c := exec.Command(v.site.program, "serve", "--config", v.name+".yaml", "--listen", v.address, "--ready-file", ready)
	c.Dir, c.Stdout, c.Stderr = v.site.dir, log, log
	c.Env = append(os.Environ(), "GOMAXPROCS=2", "CLOCK_AHEAD="+v.clockFile())
	if err := c.Start(); err != nil {
		v.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		c.Wait()
		close(ended)
	}()
	v.mu.Lock()
	defer v.mu.Unlock()
	v.command, v.ended = c, ended
	return ended
}

func (v *siteServer) signal(s syscall.Signal) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.command != nil {
		_ = v.command.Process.Signal(s)
	}
}

// kill ends the process without a chance to finish anything.
func (v *siteServer) kill() {
	v.signal(syscall.SIGKILL)
	v.mu.Lock()
	ended := v.ended
	v.mu.Unlock()
	if ended != nil {
		<-ended
	}
}

// running reports whether the process has not ended by itself.
func (v *siteServer) running() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	select {
	case <-v.ended:
		return false
	default:
		return true
	}
}

func (v *siteServer) clockFile() string { return filepath.Join(v.site.dir, v.name+".clock") }

func (v *siteServer) logFile() string { return filepath.Join(v.site.dir, v.name+".log") }

// log returns the end of what the server said.
func (v *siteServer) log() string {
	text, err := os.ReadFile(v.logFile())
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-4000):])
}
