// The command line: one table of options, parsed once into a struct vm_config.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdbool.h>
#include <glib.h>

#include "options/config.h"

/** enum command_line_verb - What the command line asks for */
enum command_line_verb {
	COMMAND_LINE_RUN,   /* run the VM that the returned config describes */
	COMMAND_LINE_PRINT, /* write @text to stdout and end: --version, --help, -device help */
};

/**
 * struct command_line_action - What to do instead of running, and whom to ask for help texts
 * @verb:	Out: see enum command_line_verb
 * @text:	Out: with COMMAND_LINE_PRINT, the text; owned by the caller (g_free())
 * @device_help: In: appends the list of drivers (@driver NULL) or one driver's properties to @out;
 *		false with @error set when there is no such driver.  NULL: there are no drivers.
 */
struct command_line_action {
	enum command_line_verb verb;
	char *text;
	bool (*device_help)(const char *driver, GString *out, GError **error);
};

/**
 * command_line_parse() - Read argv (argv[0] is skipped) from left to right
 * @action:	See above; @device_help is read, the rest is written
 *
 * Nothing on the host is touched, but a -drive file= is looked at (stat) to tell a block device
 * from a file.  Context: main thread, before anything else.
 * Return: the config, the caller's; NULL with @action->verb COMMAND_LINE_PRINT and no error; or
 * NULL with @error set: one line "-option value: thing: reason; remedy".
 */
struct vm_config *command_line_parse(int argc, char **argv, struct command_line_action *action,
				     GError **error);
