// Command program is what the tests run in sandboxes.
package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	args := os.Args[1:]
	switch args[0] {
	case "echo":
		fmt.Println(strings.Join(args[1:], " "))
	case "env":
		fmt.Println(strings.Join(os.Environ(), "\n"))
	case "id":
		fmt.Println(os.Getuid())
	case "pwd":
		dir, _ := os.Getwd()
		fmt.Println(dir)
	case "tty":
		for fd := range 3 {
			name, _ := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
			fmt.Println(fd, name)
		}
		fmt.Println("TERM", os.Getenv("TERM"))
	case "line": // of input
		var line string
		n, err := fmt.Scanln(&line)
		fmt.Println("line", n, err, line)
	case "cat":
		_, _ = io.Copy(os.Stdout, os.Stdin)
	case "read":
		b, err := os.ReadFile(args[1])
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		_, _ = os.Stdout.Write(b)
	case "write":
		if err := os.WriteFile(args[1], []byte("x"), 0o644); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	case "sleep":
		time.Sleep(time.Hour)
	case "eat": // MiB of memory
		n, _ := strconv.Atoi(args[1])
		b := make([]byte, n<<20)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
	case "feed": // a child
		_ = exec.Command("/proc/self/exe", "eat", args[1]).Run()
	case "die":
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		time.Sleep(time.Hour)
	case "exit":
		n, _ := strconv.Atoi(args[1])
		os.Exit(n)
	}
}
