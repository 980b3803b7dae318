package etcdkv

import (
	"os/exec"
	"strings"
	"testing"
)

// TestSmallBuild checks that the tag keeps the client of etcd out of the command, too.
func TestSmallBuild(t *testing.T) {
	for _, args := range [][]string{{"-tags", "noetcd", "."}, {"-tags", "noetcd", "../../../cmd/msl-hsm"}} {
		out, err := exec.Command("go", append([]string{"list", "-deps"}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		for _, part := range []string{"go.etcd.io/etcd/", "google.golang.org/grpc"} {
			if strings.Contains(string(out), part) {
				t.Errorf("%v: %s is in it", args, part)
			}
		}
	}
}
