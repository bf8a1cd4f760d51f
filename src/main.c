// Table of contents: parse, build or take over, run.
// SPDX-License-Identifier: Apache-2.0
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/error.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/signals.h"
#include "cpr/update.h"
#include "device/device.h"
#include "machine/process.h"
#include "monitor/monitors.h"
#include "options/command_line.h"

/**
 * struct program - Everything that lives as long as the process
 * @resumed:	This program goes on where the one before an exec stopped
 * @ended:	The main loop is to end, or not to begin: a guest may power off before it runs
 */
struct program {
	GMainLoop *loop;
	GSource *signals;
	struct update *update;
	struct pidfile *pidfile;
	struct monitors *monitors;
	bool resumed;
	bool ended;
	int status;
};

static void end(void *opaque)
{
	struct program *program = opaque;

	program->ended = true;
	g_main_loop_quit(program->loop);
}

/* Told to end, by a monitor or a signal; what was told once is not told again. */
static void quit(void *opaque, const char *reason)
{
	struct program *program = opaque;

	if (program->ended)
		return;
	if (update_quit(program->update))
		machine_shutdown(update_machine(program->update), reason, false);
	else
		end(program);
}

static void signalled(void *opaque)
{
	quit(opaque, "host-signal");
}

static void machine_arrived(void *opaque, struct machine *machine)
{
	process_set_name(machine_config(machine));
	machine_on_quit(machine, end, opaque);
}

/* The guest runs: after an exec a pid file that cannot be had is worth less than it. */
static void write_pidfile_late(struct program *program)
{
	struct update *update = program->update;
	g_autoptr(GError) error = NULL;

	if (!program->pidfile)
		program->pidfile = pidfile_new(update_config(update), update_fds(update), &error);
	if (program->pidfile)
		pidfile_write_later(program->pidfile);
	if (error)
		log_error("%s", error->message);
}

/* An update this process was the target of has ended; with @error, there is no guest here. */
static void update_ended(void *opaque, const GError *error)
{
	struct program *program = opaque;

	if (!error) {
		if (program->resumed)
			write_pidfile_late(program);
		return;
	}
	log_error("%s", error->message);
	program->status = EXIT_FAILURE;
	end(program);
}

static bool start(struct program *program, GError **error)
{
	struct update *update = program->update;
	g_autoptr(GError) failure = NULL;

	if (update_probed() && !pidfile_check(update_config(update), error))
		return false;
	program->pidfile = pidfile_new(update_config(update), update_fds(update), &failure);
	if (failure && !program->resumed) {
		g_propagate_error(error, g_steal_pointer(&failure));
		return false;
	}
	if (program->pidfile && !program->resumed && !pidfile_write(program->pidfile, error))
		return false;
	program->monitors = monitors_new(update, quit, program, error);
	return program->monitors && update_start(update, error);
}

static bool run(struct program *program, struct vm_config *config, char **argv, int *ready_fd,
		GError **error)
{
	autoptr(update) update = NULL;
	bool ok;

	/* Asked before it is done: what an exec left is read once. */
	program->resumed = update_resumes_process();
	update = update_new(config, argv, error);

	if (!update)
		return false;
	program->update = update;
	update_on_machine(update, machine_arrived, program);
	update_on_end(update, update_ended, program);
	ok = start(program, error);
	if (!ok)
		update_abandon(update, (*error)->message);
	if (ok)
		monitors_start(program->monitors);
	if (ok)
		process_ready(ready_fd);
	if (ok && !program->ended)
		g_main_loop_run(program->loop);
	pidfile_free(program->pidfile);
	monitors_free(program->monitors);
	return ok;
}

/*
 * What was freed is kept for the next time.  A pause needs some 200 KiB for a moment, and a rehearsal
 * has made them ready: given back to the kernel, they would be page faults and a flush of other
 * processors' TLBs in it.  Larger blocks, and what the heap has too much of, still go back.
 */
static void keep_heap(void)
{
#ifdef __GLIBC__
	mallopt(M_MMAP_THRESHOLD, 1 << 20);
	mallopt(M_TRIM_THRESHOLD, 4 << 20);
#endif
}

int main(int argc, char **argv)
{
	struct command_line_action action = {.device_help = device_help};
	g_autoptr(GError) error = NULL, failure = NULL;
	struct program program = {.status = EXIT_SUCCESS};
	struct vm_config *config;
	autofd int ready_fd = -1;
	int status;

	if (!fd_reserve_standard())
		return EXIT_FAILURE;
	if (!update_check_privileges(&error)) {
		log_error("%s", error->message);
		return EXIT_FAILURE;
	}
	keep_heap();
	config = command_line_parse(argc, argv, &action, &error);
	if (update_probed() && !update_rehearse(&failure)) {
		log_error("%s", failure->message);
		return EXIT_FAILURE;
	}
	if (!config && !error && update_resumes_process())
		error_set_generic(&error, "the command does not start a VM");
	if (!config && !error) {
		fputs(action.text, stdout);
		g_free(action.text);
		return EXIT_SUCCESS;
	}
	if (config && config->daemonize && !update_resumes_process() &&
	    process_daemonize(&ready_fd, &status, &error) == PROCESS_PARENT)
		return status;
	signals_hold();
	program.loop = g_main_loop_new(NULL, FALSE);
	if (!error)
		program.signals = signals_watch(signalled, &program, &error);
	if (error)
		update_exec_back(error->message);
	if (error || !run(&program, config, argv, &ready_fd, &error)) {
		log_error("%s", error->message);
		program.status = EXIT_FAILURE;
	}
	loop_unwatch(&program.signals);
	g_main_loop_unref(program.loop);
	return program.status;
}
