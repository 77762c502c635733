// Pause is the program of a pod's sandbox container: it holds the pod's namespaces open until it is told to stop.
package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGINT, syscall.SIGTERM)

	// With a shared process namespace this is process 1, and every orphan of the pod becomes its child.
	orphans := make(chan os.Signal, 1)
	signal.Notify(orphans, syscall.SIGCHLD)
	for {
		select {
		case <-stop:
			return
		case <-orphans:
			for {
				child, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
				if child <= 0 || err != nil {
					break
				}
			}
		}
	}
}
