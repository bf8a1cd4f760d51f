// A VM's offer, for tests that need one.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <glib.h>
#include <jansson.h>

#include "cpr/offer.h"
#include "options/command_line.h"

static inline struct vm_config *config_of(const char *line)
{
	g_auto(GStrv) argv = NULL;
	struct command_line_action action = {0};
	g_autoptr(GError) error = NULL;
	struct vm_config *config;
	int argc;

	g_assert_true(g_shell_parse_argv(line, &argc, &argv, NULL));
	config = command_line_parse(argc, argv, &action, &error);
	g_assert_no_error(error);
	g_assert_nonnull(config);
	return config;
}

#define VM                                                                                     \
	"molt -nodefaults -m 64M -smp 2 -machine aux-ram-share=on "                            \
	"-chardev socket,id=mon,path=/tmp/m,server=on,wait=off -mon chardev=mon,mode=control " \
	"-chardev null,id=com -serial chardev:com"

static inline json_t *tree_of(void)
{
	return json_loads(
		"{\"devices\":[{\"section\":\"pci/00.1/a\",\"instance\":0,\"state\":\"a\","
		"\"version\":2,\"min-reader\":1},{\"section\":\"vcpu\",\"instance\":1,\"state\":"
		"\"vcpu\",\"version\":1,\"min-reader\":1}],\"ram\":[{\"name\":\"pc.ram\","
		"\"size\":4096,\"share\":true}]}",
		0, NULL);
}

static inline json_t *offer_of(const struct vm_config *config)
{
	char session[OFFER_SESSION_BYTES];

	g_assert_true(offer_session_new(session, NULL));
	return offer_to_json(config, tree_of(), session, 2, "cpr-transfer");
}
