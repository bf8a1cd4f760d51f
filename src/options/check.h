// What a configuration must fulfil whoever wrote it: ids, references, sizes that agree.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdbool.h>
#include <glib.h>

#include "options/config.h"

/**
 * vm_config_check() - The rules between the parts of a configuration
 *
 * The command line and vm_config_from_json() both end in it.  Messages name the options that would
 * be at fault.  Return: false with @error set at the first rule that is broken.
 */
bool vm_config_check(const struct vm_config *config, GError **error);

/**
 * chardev_config_check() - The rules between the properties of one character device
 * @what:	Prefix of messages: "-chardev socket,id=c0"
 * Return: false with @error set at the first rule that is broken.
 */
bool chardev_config_check(const struct chardev_config *chardev, const char *what, GError **error);

/**
 * machine_config_check() - The machine type is one there is
 * Return: false with @error set, prefixed by @what, where it is not.
 */
bool machine_config_check(const struct machine_config *machine, const char *what, GError **error);

/**
 * id_check() - @id may name an object: a letter, then letters, digits, '-', '.', '_'; VM_ID_MAX
 * Return: false with @error set, prefixed by @what, where it may not.
 */
bool id_check(const char *id, const char *what, GError **error);
