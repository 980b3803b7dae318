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

// KernelLog names the event log that the kernel has, in place of a file.
const KernelLog = "kernel"

// EventLog reads the event log of this start from a file, or with [KernelLog] that of the
// kernel. With no name it is that of the kernel, if there is one for the TPM that may be read,
// or else none.
func EventLog(c *config.Config, name string) ([]byte, error) {
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
		return nil, exit.Usagef("--event-log: %w", err)
	}
	return log, nil
}

// kernelEventLog returns where the kernel has the event log of a TPM, whose number is that of
// its device. Of a TPM elsewhere it has none.
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

// readEventLog reads a file whose size is not known before.
func readEventLog(path string) ([]byte, error) {
	log, err := plainfile.Read(path)
	if err == nil && len(log) > enroll.MaxEventLog {
		err = fmt.Errorf("%s has more than %d bytes", path, enroll.MaxEventLog)
	}
	return log, err
}
