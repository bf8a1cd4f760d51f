// What the process is to its host, beside the VM: daemon, pid file, name.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdbool.h>
#include <glib.h>

#include "base/cleanup.h"
#include "options/config.h"
#include "state/fd_acquire.h"

/** enum process_role - Which side of process_daemonize() this is */
enum process_role {
	PROCESS_SELF,	/* go on: the daemon, or the process itself if none was asked for */
	PROCESS_PARENT, /* end with the status given: the daemon is up, or has failed */
	PROCESS_FAILED,
};

/**
 * process_daemonize() - Fork the daemon; the parent waits until it is ready
 * @ready_fd:	Set in the daemon, for process_ready()
 * @status:	Set in the parent: exit status
 *
 * Context: main thread, before any other thread or KVM descriptor exists.
 */
enum process_role process_daemonize(int *ready_fd, int *status, GError **error);

/** process_ready() - The daemon is up: let the parent end, leave terminal and directory. */
void process_ready(int *ready_fd);

/**
 * process_set_name() - What ps and top call the process, if -name process= says so
 *
 * An exec takes the name away.  Context: main thread, whose name it is.
 */
void process_set_name(const struct vm_config *config);

/** struct pidfile - A locked file with the process id in it */
struct pidfile;

/**
 * pidfile_new() - Make and lock config->pidfile, or go on with the one inherited over an exec
 * Return: NULL without @error if there is none to write; NULL with @error set on failure.
 */
struct pidfile *pidfile_new(const struct vm_config *config, struct fd_source *fds, GError **error);

/** pidfile_check() - Whether config->pidfile could be made, as far as can be told without it. */
bool pidfile_check(const struct vm_config *config, GError **error);

/** pidfile_write() - Write this process's id into it. */
bool pidfile_write(const struct pidfile *pidfile, GError **error);

/** pidfile_write_later() - The same under a guest that runs: on a thread, for the store may hang.  What
 * fails is logged. */
void pidfile_write_later(const struct pidfile *pidfile);

/** pidfile_free() - Remove the file; accepts NULL. */
void pidfile_free(struct pidfile *pidfile);
DEFINE_CLEANUP(pidfile, pidfile_free)
