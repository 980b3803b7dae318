package keys

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/internal/plainfile"
	"github.com/msl-hsm/msl-hsm/tpm/enroll"
)

// KernelLog denotes the kernel's event log, instead of a file.
const KernelLog = "kernel"

// EventLog reads the event log of this start from a file, or with [KernelLog] from the
// kernel. Without a name it is the kernel's, if there is a readable one for the TPM,
// otherwise none. setting is what names the file.
func EventLog(c *config.Config, setting, name string) ([]byte, error) {
	path, err := kernelEventLog(c)
	switch {
	case err != nil:
		return nil, err
	case name == "":
		if log, err := readEventLog(path); err == nil {
			return log, nil
		}
		return nil, nil
	case name != KernelLog:
		path = name
	case path == "":
		return nil, exit.Usagef("the kernel has no event log of %s: give --event-log=FILE", c.Keystore.URI)
	}
	log, err := readEventLog(path)
	if err == nil && len(log) == 0 {
		err = fmt.Errorf("%s is empty", path)
	}
	if err != nil {
		return nil, exit.Usagef("%s: %w", setting, err)
	}
	return log, nil
}

// kernelEventLog returns the path of the kernel's event log for a TPM, with the same
// number as its device. For a TPM elsewhere there is none.
func kernelEventLog(c *config.Config) (string, error) {
	u, err := TPMURI(c)
	if err != nil || u.Unix != "" || u.TCP != "" {
		return "", err
	}
	number := "0"
	if u.Device != "" {
		number = strings.TrimLeft(filepath.Base(u.Device), "tpmr")
	}
	return "/sys/kernel/security/tpm" + number + "/binary_bios_measurements", nil
}

// readEventLog reads a file of unknown size.
func readEventLog(path string) ([]byte, error) {
	log, err := plainfile.Read(path)
	if err == nil && len(log) > enroll.MaxEventLog {
		err = fmt.Errorf("%s has more than %d bytes", path, enroll.MaxEventLog)
	}
	return log, err
}
