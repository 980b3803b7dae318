package atomicfile

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
)

// elsewhere are the files of this module that may rename or write files by
// themselves, and why.
var elsewhere = map[string]string{
	"cmd/msl-hsm/internal/admin/backup.go":       "streams copies of the state, and syncs by this package",
	"cmd/msl-hsm/internal/admin/move_devices.go": "makes a copy for itself that nobody keeps",
	"internal/atomicfile/atomicfile.go":          "is the home",
	"cmd/msl-hsm/internal/cli/tpm.go":            "puts a file aside, and writes none",
	"msl/failurelog/log.go":                      "rotates a log",
	"hsm/hsmtest/module.go":                      "for tests",
	"internal/auditlog/files.go":                 "rotates a log",
	"scripts/balance.go":                         "a tool, and no part of the program",
	"scripts/benchreport/main.go":                "a tool, and no part of the program",
	"internal/kv/boltkv/copy.go":                 "streams files that do not fit into memory, and syncs by this package",
	"internal/throwaway/throwaway.go":            "makes files that nobody keeps, or that others rename",
	"softhsm/temp.go":                            "for tests",
	"softhsm/clone.go":                           "for tests",
	"softhsm/make.go":                            "moves a directory of SoftHSM, and writes no file",
	"tpm/tpmtest/ek.go":                          "for tests",
	"internal/localsocket/localsocket.go":        "moves a socket, which has no content",
}

// makers are the files that may make files by themselves, and why.
var makers = map[string]string{
	"internal/atomicfile/atomicfile.go":       "is the home",
	"internal/throwaway/throwaway.go":         "makes only new files, under names that nobody can guess",
	"internal/kv/etcdkv/etcdtest/etcdtest.go": "for tests",
	"hsm/processlock.go":                      "makes a lock, and follows no link to it",
}

var making = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`os\.OpenFile\(.*O_CREATE`) })

// TestOneHome keeps other code from replacing files in a way of its own.
func TestOneHome(t *testing.T) {
	root := filepath.Join("..", "..")
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		name := filepath.ToSlash(strings.TrimPrefix(path, root+string(filepath.Separator)))
		for _, call := range []string{"os.Rename(", "os.WriteFile(", "os.CreateTemp(", "os.Link(", "os.Create("} {
			if bytes.Contains(text, []byte(call)) && elsewhere[name] == "" {
				t.Errorf("%s calls %s): write files by internal/atomicfile", name, call)
			}
		}
		if making().Match(text) && makers[name] == "" {
			t.Errorf("%s makes a file by os.OpenFile, which follows a link that somebody planted: open it by internal/atomicfile", name)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
